import { type Architecture, architectureOfElf, architectures } from '../arch/index.ts';
import {
  ELF_HEADER_BYTES,
  type ElfHeader,
  type ElfNote,
  ET_CORE,
  PROGRAM_HEADER_BYTES,
  type ProgramHeader,
  PT_LOAD,
  PT_NOTE,
  parseElfHeader,
  parseNotes,
  parseProgramHeaders,
  programHeaderCount,
} from '../system/elf.ts';
import { type CpuNote, cpuNotesOf } from './elf-notes.ts';
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
  /** All notes, those of the CPUs too. */
  readonly notes: readonly ElfNote[];
  /** Text of the VMCOREINFO note, if the dump has one. */
  readonly vmcoreinfo: string | undefined;
  /** What is wrong with the dump but does not keep it from being read. */
  readonly warnings: readonly string[];
  /**
   * Which pages makedumpfile was told to leave out, as its option -d says it; undefined if the file does not
   * tell.
   */
  readonly dumpLevel?: number;
  /** It is the memory of the running kernel. */
  readonly isAlive?: boolean;
}

/** An offset or a size beyond this is damage, and no number could count on from it exactly. */
const HIGHEST_NUMBER = 2 ** 52 - 1;

function requirePlausible(value: number, file: VmcoreFile, what: string): void {
  if (value > HIGHEST_NUMBER) throw new FormatError(file.path, `damaged: ${what} is 0x${value.toString(16)}`);
}

/** The header of a core of an architecture that is read; throws a FormatError for any other file. */
function readHeader(file: VmcoreFile): { header: ElfHeader; architecture: Architecture } {
  const header = parseElfHeader(file.readExact(0, ELF_HEADER_BYTES, 'the ELF header'));
  if (header === undefined) throw new FormatError(file.path, 'is not a 64-bit little-endian ELF file');
  const architecture = architectureOfElf(header.machine);
  if (header.type !== ET_CORE) throw new FormatError(file.path, 'is an ELF file, but not a core');
  if (architecture === undefined) {
    const known = architectures.map(({ name }) => name).join(', ');
    throw new FormatError(file.path, `is a core of another architecture than ${known}`);
  }
  if (header.programHeaderBytes !== PROGRAM_HEADER_BYTES)
    throw new FormatError(file.path, 'has program headers of an unknown size');
  return { header, architecture };
}

function programHeaders(file: VmcoreFile): { architecture: Architecture; headers: ProgramHeader[] } {
  const { header, architecture } = readHeader(file);
  const count = programHeaderCount(header, (offset, length) => {
    requirePlausible(offset, file, 'the section table');
    return file.readExact(offset, length, 'ELF section 0');
  });
  if (count > MAX_PROGRAM_HEADERS) throw new FormatError(file.path, `damaged: ${count} program headers`);
  const start = header.programHeadersOffset;
  requirePlausible(start, file, 'the program header table');
  const table = file.readExact(start, count * PROGRAM_HEADER_BYTES, 'the program header table');
  const headers = parseProgramHeaders(table).filter(({ type }) => type === PT_LOAD || type === PT_NOTE);
  for (const { offset, physical, fileBytes, memoryBytes } of headers) {
    requirePlausible(offset, file, 'a segment offset');
    requirePlausible(physical, file, 'a physical address');
    requirePlausible(fileBytes, file, 'a segment size');
    requirePlausible(memoryBytes, file, 'a segment size');
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

/**
 * makedumpfile leaves pages out at the end of a segment, which is then shorter in the file than in memory.
 */
function leftOutOf(headers: readonly ProgramHeader[]): PhysicalRange[] {
  return headers
    .filter(({ type, fileBytes, memoryBytes }) => type === PT_LOAD && memoryBytes > fileBytes)
    .map(({ physical, fileBytes, memoryBytes }) => ({
      physical: physical + fileBytes,
      length: memoryBytes - fileBytes,
    }));
}

/**
 * Lays mappings over the loads: one for loads that lie together in the file. That costs nothing until
 * something is touched.
 */
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
 * Opens an ELF vmcore: `/proc/vmcore`, a copy of it, QEMU's `dump-guest-memory`, makedumpfile's ELF output.
 * Throws a FormatError for a foreign or damaged file. Memory beyond a truncated file's end is left out, with
 * a warning.
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
    ...{ architecture, physical, notes, vmcoreinfo, warnings },
    cpuNotes: cpuNotesOf(notes, architecture.notes),
  };
}
