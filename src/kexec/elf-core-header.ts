import {
  ELF_HEADER_BYTES,
  EM_X86_64,
  PN_XNUM,
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  PT_NOTE,
} from '../system/elf.ts';
import { type CoreProgramHeader, encodeCoreHeader, encodeProgramHeader } from '../system/elf-core-writer.ts';
import type { Range } from '../system/range.ts';
import { KexecError } from './error.ts';
import { crashReservations, isSystemRam, type Resource } from './memory-map.ts';
import { joinRanges, subtractRanges } from './ranges.ts';

/** Notes, or memory, of the dying kernel: a physical address and a size in bytes. */
export interface PhysicalArea {
  readonly address: number;
  readonly bytes: number;
}

/** Memory that the crash kernel shows in /proc/vmcore besides the dead kernel's RAM. */
export interface ExtraLoad extends PhysicalArea {
  /** Kernel address; 0 if left out. */
  readonly virtual?: bigint;
}

export interface ElfCoreContent {
  /** Of the running kernel, from /proc/iomem. */
  readonly resources: readonly Resource[];
  /** Each CPU's crash notes, then vmcoreinfo, then what else has notes, in this order. */
  readonly notes: readonly PhysicalArea[];
  /** Further memory. */
  readonly loads?: readonly ExtraLoad[];
  /**
   * Kernel address of `_text`. Where the kernel's text lies cannot be told from /proc/iomem alone, because
   * its virtual and its physical place are chosen apart (KASLR). Without it there is no segment of the text.
   */
  readonly textVirtual?: bigint;
  /** page_offset_base: where the direct map begins. Without it the virtual addresses of RAM are 0. */
  readonly directMap?: bigint;
}

/** The kernel does not save what lies below it: it is reserved for starting CPUs (reserve_real_mode). */
const LOW_MEMORY: Range = { start: 0, end: 2 ** 20 };
const PF_RWX = 7;

/**
 * The ELF header that `elfcorehdr=` names: what the crash kernel makes /proc/vmcore of. The file offset of
 * each segment is its physical address. As crash_prepare_elf64_headers has it (kernel/crash_core.c): PT_NOTE
 * for notes, PT_LOAD for the kernel's text and for each range of System RAM but the first mebibyte and what
 * is reserved for the crash kernel.
 * @throws KexecError if there are more segments than the header can count
 */
export function encodeElfCoreHeader(content: ElfCoreContent): Buffer {
  const headers = [
    ...content.notes.map(({ address, bytes }) => segment(PT_NOTE, address, bytes)),
    ...textLoads(content),
    ...ramRanges(content.resources).map(({ start, end }) =>
      segment(PT_LOAD, start, end - start, inDirectMap(content.directMap, start)),
    ),
    ...(content.loads ?? []).map(({ address, bytes, virtual }) => segment(PT_LOAD, address, bytes, virtual)),
  ];
  // The crash kernel does not look into section 0 for more.
  if (headers.length >= PN_XNUM)
    throw new KexecError(
      `the core header would have ${headers.length} segments, and it counts up to ${PN_XNUM - 1}: ` +
        '/proc/iomem has too many ranges of System RAM',
    );
  return Buffer.concat([
    encodeCoreHeader(EM_X86_64, headers.length),
    ...headers.map((header) => encodeProgramHeader(header)),
  ]);
}

/** Bytes of a core header, which has to be placed before its content is known. */
export function elfCoreHeaderBytes(content: ElfCoreContent): number {
  const loads =
    textLoads(content).length + ramRanges(content.resources).length + (content.loads?.length ?? 0);
  return ELF_HEADER_BYTES + (content.notes.length + loads) * PROGRAM_HEADER_BYTES;
}

function ramRanges(resources: readonly Resource[]): Range[] {
  return subtractRanges(joinRanges(resources.filter(isSystemRam)), [
    LOW_MEMORY,
    ...crashReservations(resources),
  ]);
}

function textLoads({ resources, textVirtual }: ElfCoreContent): CoreProgramHeader[] {
  if (textVirtual === undefined) return [];
  const ofKernel = resources.filter(({ name }) => /^Kernel (code|rodata|data|bss)$/.test(name));
  const code = ofKernel.find(({ name }) => name === 'Kernel code');
  if (code === undefined)
    throw new KexecError(
      '/proc/iomem has no "Kernel code": where the kernel lies is not known; run this as root',
    );
  const end = Math.max(...ofKernel.map((resource) => resource.end));
  return [segment(PT_LOAD, code.start, end - code.start, textVirtual)];
}

function segment(
  type: CoreProgramHeader['type'],
  address: number,
  bytes: number,
  virtual = 0n,
): CoreProgramHeader {
  const flags = type === PT_LOAD ? PF_RWX : 0;
  return { type, flags, offset: address, virtual, physical: address, fileBytes: bytes, memoryBytes: bytes };
}

function inDirectMap(base: bigint | undefined, physical: number): bigint {
  return base === undefined ? 0n : base + BigInt(physical);
}
