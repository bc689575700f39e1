import type { Range } from '../system/range.ts';
import { parseBzImage } from './bzimage.ts';
import type { EfiState } from './efi.ts';
import {
  type ElfCoreContent,
  elfCoreHeaderBytes,
  encodeElfCoreHeader,
  type PhysicalArea,
} from './elf-core-header.ts';
import { type ImagePlan, planImage, type SegmentRequest } from './image-plan.ts';
import { crashLoadRange, crashMemoryMap, type Resource } from './memory-map.ts';

/** Part of a segment: bytes from its address on. */
interface SegmentPart {
  readonly offset: number;
  readonly bytes: number;
}

/** A segment besides those of the kernel, of which /proc/vmcore may show something. */
export interface CrashSegment extends SegmentRequest {
  /**
   * Parts that hold ELF notes when the crash kernel starts. It reads them up to one without a name: at least
   * 12 bytes of zeros have to follow the last (update_note_header_size_elf64, fs/proc/vmcore.c).
   */
  readonly notes?: readonly SegmentPart[];
  /** Parts that are shown as memory. */
  readonly loads?: readonly (SegmentPart & { readonly virtual?: bigint })[];
}

/** What a crash kernel is loaded with. */
export interface CrashImageContent extends Omit<ElfCoreContent, 'resources'> {
  /** A bzImage. */
  readonly image: Buffer;
  /** Of the image, for messages. */
  readonly imageName?: string;
  /** undefined or empty: none. */
  readonly initrd: Buffer | undefined;
  /** Without `elfcorehdr=`, which is put in front of it. */
  readonly commandLine: string;
  /** /proc/iomem of the running kernel. */
  readonly resources: readonly Resource[];
  /** boot_params of the running kernel: /sys/kernel/boot_params/data. */
  readonly bootParams: Buffer;
  /** From `readEfiState`. */
  readonly efi?: EfiState | undefined;
  /** Random bytes for the crash kernel's generator: 32. */
  readonly rngSeed?: Buffer | undefined;
  /** The running kernel's page tables have five levels (VMCOREINFO: pgtable_l5_enabled). */
  readonly fiveLevels?: boolean;
  readonly extra?: readonly CrashSegment[];
}

/** The kernel takes its control pages from the lowest free ones (kimage_alloc_crash_control_pages). */
const CONTROL_BYTES = 2 ** 20;
const ELF_CORE_HEADER = 'elfcorehdr';

/**
 * Plans a crash kernel: everything lies in the memory that is reserved for it. Nothing is read and nothing is
 * loaded. Besides the segments of {@link planImage} there is `elfcorehdr`, before the extra ones.
 * @throws KexecError if the image is none, nothing is reserved, something does not fit, or the command line
 *   is too long
 */
export function planCrashImage(content: CrashImageContent): ImagePlan {
  const { resources, commandLine, initrd, extra = [] } = content;
  const reservation = crashLoadRange(resources);
  return planImage({
    image: parseBzImage(content.image, content.imageName),
    initrd,
    commandLine: (ranges) => elfcorehdr(ranges.get(ELF_CORE_HEADER)!, commandLine),
    within: [{ start: reservation.start + CONTROL_BYTES, end: reservation.end }],
    advice: 'reserve more: crashkernel= of the kernel command line, then reboot',
    requests: [elfCoreRequest(content, extra), ...extra],
    memoryMap: (kept) => crashMemoryMap(resources, kept),
    running: content.bootParams,
    efi: content.efi,
    rngSeed: content.rngSeed,
    fiveLevels: content.fiveLevels ?? false,
  });
}

function elfcorehdr({ start }: Range, commandLine: string): string {
  return `${ELF_CORE_HEADER}=0x${start.toString(16)} ${commandLine}`;
}

function elfCoreRequest(content: CrashImageContent, extra: readonly CrashSegment[]): SegmentRequest {
  const withExtra = (startOf: (name: string) => number): ElfCoreContent => ({
    ...content,
    notes: [
      ...content.notes,
      ...extra.flatMap(({ name, notes = [] }) => notes.map((part) => areaOf(part, startOf(name)))),
    ],
    loads: [
      ...(content.loads ?? []),
      ...extra.flatMap(({ name, loads = [] }) =>
        loads.map((part) => ({ ...areaOf(part, startOf(name)), virtual: part.virtual ?? 0n })),
      ),
    ],
  });
  return {
    name: ELF_CORE_HEADER,
    memoryBytes: elfCoreHeaderBytes(withExtra(() => 0)),
    kept: true,
    content: ({ ranges }) => encodeElfCoreHeader(withExtra((name) => ranges.get(name)!.start)),
  };
}

function areaOf({ offset, bytes }: SegmentPart, start: number): PhysicalArea {
  return { address: start + offset, bytes };
}
