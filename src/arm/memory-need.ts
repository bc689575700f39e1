import { PAGE_SIZE } from '../system/page.ts';
import { BOUNCE_BYTES, parameterValue } from './command-line.ts';

const MIB = 2 ** 20;

/**
 * Kernel image, page descriptors and boot-time allocations of the crash kernel: reserved size minus MemTotal,
 * without the bounce buffers.
 */
const KERNEL_BYTES = 48 * MIB;
/**
 * User space of the crash world at its peak: Node.js with the bundle, the model of what is captured, CRIU,
 * shell, page cache that cannot be dropped.
 */
const USER_SPACE_BYTES = 124 * MIB;
/**
 * What the kernel keeps for each processor that may be started later: measured as the difference between 2
 * and 16.
 */
const PER_CPU_BYTES = 1.25 * MIB;
/** What starting one takes, its threads above all: 9 MiB for 14. */
const PER_STARTED_CPU_BYTES = 0.65 * MIB;
/** sizeof(struct page) for 4096 bytes. */
const PAGE_DESCRIPTOR_SHARE = 64 / PAGE_SIZE;

/**
 * What is kept of each memory area, thread and descriptor of a protected process until its images are
 * written: measured with 144 small processes of about 26 of these each.
 */
const PER_PIECE_BYTES = 0.024 * MIB;

/** What to reserve on a machine with few processors, and how many those are. */
const SUGGESTED_BYTES = 320 * MIB;
const FEW_CPUS = 32;

/** Processors that may ever be there: `0-7`. */
export const POSSIBLE_CPUS = '/sys/devices/system/cpu/possible';

export interface CrashWorldParts {
  /** Size of the crash initramfs as loaded. */
  readonly initramfsBytes: number;
  /** Size of the part of it that is compressed: mkinitramfs's archive. */
  readonly baseBytes: number;
  /** Size of the squashfs in it, which stays in memory. */
  readonly runtimeBytes: number;
  /** Size of the first range of old memory that is taken back. */
  readonly firstRangeBytes: number;
  readonly cpus: number;
  /** What stage zero takes of the reserved memory, for all processors of the machine; 0 without it. */
  readonly stageZeroBytes: number;
}

/**
 * Memory that the crash world needs, in bytes: either while the initramfs is unpacked (it is there twice) or
 * while the first range of old memory gets its page descriptors, with all processors started.
 */
export function neededBytes({
  initramfsBytes,
  baseBytes,
  runtimeBytes,
  firstRangeBytes,
  cpus,
  stageZeroBytes,
}: CrashWorldParts): number {
  // The modules of the base archive unpack to about three times their size, the rest to its own.
  const unpacking = initramfsBytes + (initramfsBytes - baseBytes) + 3 * baseBytes;
  const started = cpus * PER_STARTED_CPU_BYTES;
  const running = runtimeBytes + USER_SPACE_BYTES + started + firstRangeBytes * PAGE_DESCRIPTOR_SHARE;
  const kernel = KERNEL_BYTES + BOUNCE_BYTES + cpus * PER_CPU_BYTES + stageZeroBytes;
  return Math.ceil((kernel + Math.max(unpacking, running)) / MIB) * MIB;
}

/** What a process has that the crash world keeps a model of. */
export interface ProcessPieces {
  readonly areas: number;
  readonly threads: number;
  readonly descriptors: number;
}

/** What the crash world needs, besides neededBytes, for the processes that it captures: in bytes. */
export function protectedBytes(processes: readonly ProcessPieces[]): number {
  const pieces = processes.reduce(
    (sum, { areas, threads, descriptors }) => sum + areas + threads + descriptors,
    0,
  );
  return pieces * PER_PIECE_BYTES;
}

/** What to reserve, in bytes: a multiple of 32 MiB. */
export function suggestedReservation(cpus: number): number {
  const more = Math.max(0, cpus - FEW_CPUS) * (PER_CPU_BYTES + PER_STARTED_CPU_BYTES);
  return Math.ceil((SUGGESTED_BYTES + more) / (32 * MIB)) * 32 * MIB;
}

/**
 * How many processors a kernel makes room for.
 * @param possible /sys/devices/system/cpu/possible of this kernel (`0-7`)
 * @param commandLine of the other, where `nr_cpus=` may make it fewer
 */
export function possibleCpus(possible: string, commandLine = ''): number {
  const last = Number(/(\d+)\s*$/.exec(possible)?.[1] ?? 0);
  const limit = Number(parameterValue(commandLine, 'nr_cpus') ?? Number.POSITIVE_INFINITY);
  return Math.max(1, Math.min(last + 1, limit >= 1 ? limit : Number.POSITIVE_INFINITY));
}
