import { type Architecture, architectureOfElf, architectures } from '../arch/index.ts';
import { type CpuNote, cpuNotesOf, type ElfNote, parseNotes } from './elf-notes.ts';
import { FormatError } from './errors.ts';
import { mapFile, type VmcoreFile } from './mapping.ts';
import {
  MappedMemory,
  type PhysicalMemory,
  type PhysicalRange,
  type Segment,
  SharedMapping,
} from './physical.ts';
import { ProcVmcoreMemory } from './proc-vmcore.ts';

const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;
const SECTION_HEADER = 64;
const ET_CORE = 4;
const PT_LOAD = 1;
const PT_NOTE = 4;
/** e_phnum says so when there are more than it can count; the number is then in section 0 (elf(5)). */
const PN_XNUM = 0xffff;
/** More program headers than any memory map has: a damaged header. */
const MAX_PROGRAM_HEADERS = 1 << 20;
const MAX_NOTE_BYTES = 64 << 20;
/** Segments that are nearer in the file than this share a mapping. */
const MAPPING_GAP = 1 << 20;
const MAX_MAPPINGS = 8192;

/** What a dump file of any kind gives. */
export interface DumpSource {
  readonly architecture: Architecture;
  readonly physical: PhysicalMemory;
  readonly cpuNotes: readonly CpuNote[];
  /** Text of the VMCOREINFO note, if the dump has one. */
  readonly vmcoreinfo: string | undefined;
  /** What is wrong with the dump but does not keep it from being read. */
  readonly warnings: readonly string[];
  /** Which pages makedumpfile was told to leave out, as its option -d says it; undefined if the file does not tell. */
  readonly dumpLevel?: number;
}

interface ProgramHeader {
  readonly type: number;
  readonly offset: number;
  readonly physical: number;
  readonly fileBytes: number;
  /** Of memory; what the file has less of is zeros, or was left out. */
  readonly memoryBytes: number;
}

function safeNumber(value: bigint, file: VmcoreFile, what: string): number {
  if (value > 0xf_ffff_ffff_ffffn)
    throw new FormatError(file.path, `damaged: ${what} is 0x${value.toString(16)}`);
  return Number(value);
}

/** The architecture whose core it is; throws a FormatError if it is none that is read. */
function checkHeader(file: VmcoreFile, header: Buffer): Architecture {
  const architecture = architectureOfElf(header.readUInt16LE(18));
  const problem =
    header[4] !== 2 || header[5] !== 1
      ? 'is not a 64-bit little-endian ELF file'
      : header.readUInt16LE(16) !== ET_CORE
        ? 'is an ELF file, but not a core'
        : architecture === undefined
          ? `is a core of another architecture than ${architectures.map(({ name }) => name).join(', ')}`
          : header.readUInt16LE(54) !== PROGRAM_HEADER
            ? 'has program headers of an unknown size'
            : undefined;
  if (problem !== undefined || architecture === undefined)
    throw new FormatError(file.path, problem ?? 'is of an unknown architecture');
  return architecture;
}

function programHeaderCount(file: VmcoreFile, header: Buffer): number {
  const count = header.readUInt16LE(56);
  if (count !== PN_XNUM) return count;
  const sections = safeNumber(header.readBigUInt64LE(40), file, 'the section table');
  return file.readExact(sections, SECTION_HEADER, 'ELF section 0').readUInt32LE(44);
}

function programHeaders(file: VmcoreFile): { architecture: Architecture; headers: ProgramHeader[] } {
  const header = file.readExact(0, ELF_HEADER, 'the ELF header');
  const architecture = checkHeader(file, header);
  const count = programHeaderCount(file, header);
  if (count > MAX_PROGRAM_HEADERS) throw new FormatError(file.path, `damaged: ${count} program headers`);
  const start = safeNumber(header.readBigUInt64LE(32), file, 'the program header table');
  const table = file.readExact(start, count * PROGRAM_HEADER, 'the program header table');
  const headers: ProgramHeader[] = [];
  for (let at = 0; at < table.length; at += PROGRAM_HEADER) {
    const type = table.readUInt32LE(at);
    if (type !== PT_LOAD && type !== PT_NOTE) continue;
    headers.push({
      type,
      offset: safeNumber(table.readBigUInt64LE(at + 8), file, 'a segment offset'),
      physical: safeNumber(table.readBigUInt64LE(at + 24), file, 'a physical address'),
      fileBytes: safeNumber(table.readBigUInt64LE(at + 32), file, 'a segment size'),
      memoryBytes: safeNumber(table.readBigUInt64LE(at + 40), file, 'a segment size'),
    });
  }
  return { architecture, headers };
}

/** Cuts loads to what the file really holds, so that no mapping reaches past its end. */
function clip(file: VmcoreFile, loads: readonly ProgramHeader[], warnings: string[]): ProgramHeader[] {
  let missing = 0;
  const clipped = loads.map((load) => {
    const fileBytes = Math.max(0, Math.min(load.fileBytes, file.sizeBytes - load.offset));
    missing += load.fileBytes - fileBytes;
    return { ...load, fileBytes };
  });
  if (missing > 0) warnings.push(`truncated: the last ${missing} bytes of memory are missing from the file`);
  const useful = clipped.filter(({ fileBytes }) => fileBytes > 0);
  if (useful.length === 0)
    throw new FormatError(file.path, 'holds no memory (no PT_LOAD segment within the file)');
  return useful;
}

/** makedumpfile leaves pages out at the end of a segment, which is then shorter in the file than in memory. */
function leftOutOf(headers: readonly ProgramHeader[]): PhysicalRange[] {
  return headers
    .filter(({ type, fileBytes, memoryBytes }) => type === PT_LOAD && memoryBytes > fileBytes)
    .map(({ physical, fileBytes, memoryBytes }) => ({
      physical: physical + fileBytes,
      length: memoryBytes - fileBytes,
    }));
}

/** Lays mappings over the loads: one for loads that lie together in the file. That costs nothing until something is touched. */
function layMappings(file: VmcoreFile, loads: readonly ProgramHeader[]): Segment[] {
  const segments: Segment[] = [];
  let group: ProgramHeader[] = [];
  let mappings = 0;
  const finish = (): void => {
    const first = group[0];
    if (first === undefined) return;
    if (++mappings > MAX_MAPPINGS)
      throw new FormatError(file.path, `damaged: more than ${MAX_MAPPINGS} separate pieces`);
    const end = Math.max(...group.map(({ offset, fileBytes }) => offset + fileBytes));
    const shared = new SharedMapping(() => mapFile(file.path, file.fd, first.offset, end - first.offset));
    for (const { physical, fileBytes, offset } of group) {
      segments.push({ physical, length: fileBytes, mapping: shared, offset: offset - first.offset });
    }
    group = [];
  };
  let end = 0;
  for (const load of loads.toSorted((a, b) => a.offset - b.offset)) {
    if (group.length > 0 && load.offset > end + MAPPING_GAP) {
      finish();
      end = 0;
    }
    group.push(load);
    end = Math.max(end, load.offset + load.fileBytes);
  }
  finish();
  return segments;
}

/**
 * Opens an ELF vmcore: `/proc/vmcore`, a copy of it, QEMU's `dump-guest-memory`, makedumpfile's ELF output. Throws a
 * FormatError for a foreign or damaged file. Memory beyond a truncated file's end is left out, with a warning.
 */
export function openElf(file: VmcoreFile): DumpSource {
  const { architecture, headers } = programHeaders(file);
  const warnings: string[] = [];
  const notes: ElfNote[] = [];
  for (const { type, offset, fileBytes } of headers) {
    if (type !== PT_NOTE) continue;
    if (fileBytes > MAX_NOTE_BYTES) throw new FormatError(file.path, `damaged: ${fileBytes} bytes of notes`);
    notes.push(...parseNotes(file.readExact(offset, fileBytes, 'the notes')));
  }
  const loads = clip(
    file,
    headers.filter(({ type }) => type === PT_LOAD),
    warnings,
  );
  const physical =
    file.path === '/proc/vmcore'
      ? new ProcVmcoreMemory(
          file,
          loads.map(({ fileBytes: length, ...load }) => ({ ...load, length })),
        )
      : new MappedMemory(layMappings(file, loads), leftOutOf(headers));
  const vmcoreinfo = notes.findLast(({ name }) => name === 'VMCOREINFO')?.description.toString('latin1');
  return {
    ...{ architecture, physical, vmcoreinfo, warnings },
    cpuNotes: cpuNotesOf(notes, architecture.notes),
  };
}
