import { LabError } from './error.ts';

/** What a guest is to have, as far as it can be too little. */
export interface Sizes {
  memoryMiB: number;
  cpus: number;
  /** 0: no memory is reserved for a crash kernel. */
  crashKernelMiB: number;
}

const LEAST_MEMORY_MIB = 512;
/** What Debian needs besides the memory reserved for the crash kernel, to boot and to arm. */
const LEAST_LEFT_MIB = 384;

/**
 * Checks the sizes of a guest before anything is built or booted for it.
 * @throws LabError that names the option and what it takes
 */
export function checkSizes({ memoryMiB, cpus, crashKernelMiB }: Sizes, arm: boolean): void {
  if (cpus < 1) throw new LabError('--cpus 0: a guest needs a CPU; --cpus 1 or more');
  if (memoryMiB < LEAST_MEMORY_MIB) {
    throw new LabError(`--memory ${memoryMiB}: a guest needs at least ${LEAST_MEMORY_MIB} MiB`);
  }
  if (arm && crashKernelMiB === 0) {
    throw new LabError(
      '--crashkernel 0 leaves no memory to arm with: leave the option out (320 MiB), or add --no-arm',
    );
  }
  const left = memoryMiB - crashKernelMiB;
  if (left >= LEAST_LEFT_MIB) return;
  throw new LabError(
    `--crashkernel ${crashKernelMiB} of --memory ${memoryMiB} leaves ${Math.max(left, 0)} MiB for the guest, which needs ` +
      `${LEAST_LEFT_MIB}: --memory ${crashKernelMiB + LEAST_LEFT_MIB} or more, or a smaller --crashkernel (0 with --no-arm)`,
  );
}
