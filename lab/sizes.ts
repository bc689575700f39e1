import { LabError } from './error.ts';
import { PID_MAX_LIMIT } from './furnish.ts';
import type { Topology } from './topology.ts';

/** What a guest is to have, as far as it can be too little. */
export interface Sizes extends Topology {
  memoryMiB: number;
  cpus: number;
  /** 0: no memory is reserved for a crash kernel. */
  crashKernelMiB: number;
  /** The number of the process before the guest's next one. */
  lastPid?: number;
}

const LEAST_MEMORY_MIB = 512;
/** What Debian needs besides the memory reserved for the crash kernel, to boot and to arm. */
const LEAST_LEFT_MIB = 384;

/** Less than this, and a node has no memory of its own to speak of. */
const LEAST_NODE_MIB = 256;
/** As many as QEMU's q35 has PCI slots for, with the other devices of a guest. */
const MOST_DISKS = 20;

function checkTopology({ memoryMiB, cpus, numaNodes = 1, disks = 1, lastPid = 0 }: Sizes): void {
  if (numaNodes < 1 || numaNodes > cpus) {
    throw new LabError(`--numa ${numaNodes}: from 1 to as many nodes as there are CPUs (--cpus ${cpus})`);
  }
  if (numaNodes > 1 && memoryMiB / numaNodes < LEAST_NODE_MIB) {
    throw new LabError(
      `--numa ${numaNodes}: each node needs ${LEAST_NODE_MIB} MiB: --memory ${numaNodes * LEAST_NODE_MIB}`,
    );
  }
  if (disks < 1 || disks > MOST_DISKS) throw new LabError(`--disk ${disks}: from 1 to ${MOST_DISKS} disks`);
  if (lastPid >= PID_MAX_LIMIT)
    throw new LabError(`--last-pid ${lastPid}: below ${PID_MAX_LIMIT}, Linux's highest`);
}

/**
 * Checks the sizes of a guest before anything is built or booted for it.
 * @throws LabError that names the option and what it takes
 */
export function checkSizes(sizes: Sizes, arm: boolean): void {
  const { memoryMiB, cpus, crashKernelMiB } = sizes;
  if (cpus < 1) throw new LabError('--cpus 0: a guest needs a CPU; --cpus 1 or more');
  if (memoryMiB < LEAST_MEMORY_MIB) {
    throw new LabError(`--memory ${memoryMiB}: a guest needs at least ${LEAST_MEMORY_MIB} MiB`);
  }
  checkTopology(sizes);
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
