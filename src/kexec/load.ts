import { constants } from 'node:os';
import { EM_X86_64 } from '../system/elf.ts';
import { SystemCallError } from '../system/errno.ts';
import { libcFunction } from '../system/libc.ts';
import { PAGE_SIZE } from '../system/page.ts';
import type { Range } from '../system/range.ts';
import { KexecError } from './error.ts';
import { intersection, rangeText } from './ranges.ts';
import { type Segment, segmentRange } from './segments.ts';

/**
 * Flags of kexec_load(2) (include/uapi/linux/kexec.h): the kernel to start at a panic, in its reserved
 * memory.
 */
export const KEXEC_ON_CRASH = 1;
/** In the upper half: which architecture the image is for. */
const KEXEC_ARCH_X86_64 = EM_X86_64 << 16;
const KEXEC_SEGMENT_MAX = 16;
const SYS_KEXEC_LOAD = 246;

interface KexecSegment {
  readonly buf: Buffer | null;
  readonly bufsz: number;
  readonly mem: number;
  readonly memsz: number;
}

const syscall = libcFunction<
  [number: number, entry: number, count: number, segments: readonly KexecSegment[], flags: number]
>(
  'long syscall(long number, unsigned long entry, unsigned long count, kexec_segment *segments, unsigned long flags)',
  {
    kexec_segment: { buf: 'const void *', bufsz: 'size_t', mem: 'size_t', memsz: 'size_t' },
  },
);

/** What is loaded. */
export interface KexecImage {
  /** Physical address that the running kernel jumps to. */
  readonly entry: number;
  readonly segments: readonly Segment[];
  /** {@link KEXEC_ON_CRASH}, or 0 for what `kexec -e` starts. */
  readonly flags: number;
  /** What the segments have to lie in: for a crash kernel, the memory that is reserved for it. */
  readonly within?: Range;
}

/**
 * Loads an image with kexec_load(2), in place of what may be loaded. The kernel copies the segments before it
 * returns. A crash kernel that was loaded before may be gone if the kernel does not take this one.
 * @throws KexecError if the image is not fit to be loaded, or the kernel does not take it: `cause` is then
 *   the SystemCallError, EPERM under lockdown
 */
export function kexecLoad(image: KexecImage): void {
  requireFit(image);
  const segments = image.segments.map(({ address, bytes, memoryBytes }) => ({
    buf: bytes.length === 0 ? null : bytes,
    bufsz: bytes.length,
    mem: address,
    memsz: memoryBytes,
  }));
  call(image.entry, segments, image.flags);
}

/**
 * Unloads what is loaded, if anything is.
 * @param flags {@link KEXEC_ON_CRASH} for the crash kernel, else 0
 * @throws KexecError if the kernel does not let go of it; `cause` as for {@link kexecLoad}
 */
export function kexecUnload(flags: number): void {
  call(0, [], flags);
}

function call(entry: number, segments: readonly KexecSegment[], flags: number): void {
  const result = syscall(SYS_KEXEC_LOAD, entry, segments.length, segments, flags | KEXEC_ARCH_X86_64);
  if (result >= 0) return;
  const cause = new SystemCallError('kexec_load', -result);
  throw new KexecError(`${cause.message}: ${explain(-result)}`, { cause });
}

/** kernel/kexec.c, kernel/kexec_core.c, arch/x86/kernel/machine_kexec_64.c. */
const REASONS: ReadonlyMap<number, string> = new Map([
  [
    constants.errno.EPERM,
    'it takes CAP_SYS_BOOT, kernel.kexec_load_disabled=0, a kexec_load_limit that is not used up, and no ' +
      'lockdown; under lockdown, load a signed kernel with kexec_file_load(2)',
  ],
  [constants.errno.EBUSY, 'another program is loading a kernel at this moment; try again'],
  [
    constants.errno.EADDRNOTAVAIL,
    'the entry or a segment lies outside the memory that is reserved for a crash kernel, which may have been ' +
      'made smaller (/sys/kernel/kexec_crash_size); read /proc/iomem again',
  ],
  [
    constants.errno.ENOMEM,
    'there is no memory for what the kernel needs to change over; reserve or free more',
  ],
  [
    constants.errno.EINVAL,
    "segments overlap, all together take more than half of the machine's memory, or the kernel does not know " +
      'the flags',
  ],
  [constants.errno.ENOSYS, 'the kernel was built without CONFIG_KEXEC; use kexec_file_load(2)'],
  [constants.errno.EFAULT, 'the memory of a segment could not be read'],
]);

function explain(errno: number): string {
  return REASONS.get(errno) ?? 'see the end of dmesg';
}

/** What the kernel would refuse with a number alone (sanity_check_segment_list). */
function requireFit({ entry, segments, within }: KexecImage): void {
  if (segments.length === 0)
    throw new KexecError('an image without segments would only unload: use kexecUnload');
  if (segments.length > KEXEC_SEGMENT_MAX)
    throw new KexecError(
      `the image has ${segments.length} segments, and the kernel takes ${KEXEC_SEGMENT_MAX}`,
    );
  segments.forEach((segment, index) => {
    requireFitSegment(segment, within);
    const range = segmentRange(segment);
    const other = segments.slice(0, index).find((before) => intersection(range, segmentRange(before)));
    if (other !== undefined)
      throw new KexecError(
        `the segments ${other.name} (${rangeText(segmentRange(other))}) and ${segment.name} ` +
          `(${rangeText(range)}) overlap; place them apart`,
      );
  });
  if (!segments.map(segmentRange).some(({ start, end }) => start <= entry && entry < end))
    throw new KexecError(`the entry 0x${entry.toString(16)} lies in no segment of the image`);
}

function requireFitSegment(segment: Segment, within: Range | undefined): void {
  const { name, address, bytes, memoryBytes } = segment;
  const range = segmentRange(segment);
  if (address % PAGE_SIZE !== 0 || memoryBytes % PAGE_SIZE !== 0 || memoryBytes === 0)
    throw new KexecError(
      `the segment ${name} is at 0x${address.toString(16)} with ${memoryBytes} bytes of memory; ` +
        `both have to be multiples of ${PAGE_SIZE}`,
    );
  if (bytes.length > memoryBytes)
    throw new KexecError(`the segment ${name} has ${bytes.length} bytes for ${memoryBytes} bytes of memory`);
  if (within !== undefined && (range.start < within.start || range.end > within.end))
    throw new KexecError(
      `the segment ${name} (${rangeText(range)}) lies outside ${rangeText(within)}; place it there`,
    );
}
