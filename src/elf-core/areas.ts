import { openFileName } from '../inspect/file-name.ts';
import { fileStruct, type Inode, inodeStruct } from '../linux/fs.ts';
import { coredumpFilterOf, specialMappingName, VM } from '../linux/mm.ts';
import type { Mm, VmArea } from '../linux/mm-types.ts';
import type { UserMemory } from '../linux/readers/user-memory.ts';
import { forEachVma } from '../linux/readers/vma.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { hex, isDamage, readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** One memory area, and how much of it belongs into a core. */
export interface CoreArea {
  readonly start: number;
  readonly end: number;
  /** Where the part ends that belongs into the core. */
  readonly dumpEnd: number;
  /** PF_* of elf(5). */
  readonly flags: number;
  /** Address of the mapped file, 0 if there is none, and the place of the area's start in it, in pages. */
  readonly file: bigint;
  readonly pgoff: number;
  /** What readlink(2) of /proc/PID/map_files gives; undefined without a file. */
  readonly path: string | undefined;
  /** Pages that nobody has touched are zeros. */
  readonly isAnonymous: boolean;
  readonly isHugetlb: boolean;
  /** `[vdso]` and its like. */
  readonly special: string | undefined;
}

/** What could be read of the areas. */
export interface CoreAreas {
  readonly areas: readonly CoreArea[];
  /** Sentences about areas that are not there. */
  readonly missing: readonly string[];
}

/** Bits of /proc/PID/coredump_filter, core(5). */
const FILTER = {
  anonymousPrivate: 1 << 0,
  anonymousShared: 1 << 1,
  filePrivate: 1 << 2,
  fileShared: 1 << 3,
  elfHeaders: 1 << 4,
  hugePrivate: 1 << 5,
  hugeShared: 1 << 6,
} as const;
const ELF_MAGIC = 0x464c_457f;

/** PF_X 1, PF_W 2, PF_R 4. */
function segmentFlags(low: number): number {
  const bit = (mask: number, flag: number): number => ((low & mask) !== 0 ? flag : 0);
  return bit(VM.read, 4) | bit(VM.write, 2) | bit(VM.exec, 1);
}

/** What decides how much of an area belongs into the core. */
interface Choice {
  readonly area: VmArea;
  readonly special: string | undefined;
  readonly inode: Inode | undefined;
  readonly filter: number;
  readonly memory: UserMemory;
}

function startsWithElfHeader({ area, memory }: Choice): boolean {
  const read = memory.read(BigInt(area.vm_start), 4);
  return read.kind === 'bytes' && read.bytes.readUInt32LE(0) === ELF_MAGIC;
}

/** How many bytes the kernel would have put into a core of its own: vma_dump_size() of fs/coredump.c. */
function dumpBytes(choice: Choice): number {
  const { area, special, inode, filter } = choice;
  const all = area.vm_end - area.vm_start;
  const low = area.vm_flags.low;
  const wants = (bit: number): number => ((filter & bit) !== 0 ? all : 0);
  if (special !== undefined) return special === '[vdso]' ? all : 0;
  if ((low & (VM.dontDump | VM.io | VM.pfnMap)) !== 0) return 0;
  const isShared = (low & VM.shared) !== 0;
  if ((low & VM.hugetlb) !== 0) return wants(isShared ? FILTER.hugeShared : FILTER.hugePrivate);
  if (isShared) return wants(inode?.i_nlink === 0 ? FILTER.anonymousShared : FILTER.fileShared);
  const own = area.anon_vma === 0n ? 0 : wants(FILTER.anonymousPrivate);
  if (own > 0 || area.vm_file === 0n) return own;
  if (wants(FILTER.filePrivate) > 0) return all;
  const mayHaveHeader = wants(FILTER.elfHeaders) > 0 && area.vm_pgoff === 0 && (low & VM.read) !== 0;
  return mayHaveHeader && startsWithElfHeader(choice) ? PAGE_SIZE : 0;
}

function coreArea(kernel: Kernel, area: VmArea, filter: number, memory: UserMemory): CoreArea {
  const special = specialMappingName(kernel, area);
  const file = area.vm_file === 0n ? undefined : kernel.bind(fileStruct).at(area.vm_file);
  const inode = file === undefined ? undefined : kernel.bind(inodeStruct).at(file.f_inode);
  const path = file === undefined || inode === undefined ? undefined : openFileName(kernel, file, inode);
  return {
    start: area.vm_start,
    end: area.vm_end,
    dumpEnd: area.vm_start + dumpBytes({ area, special, inode, filter, memory }),
    flags: segmentFlags(area.vm_flags.low),
    file: area.vm_file,
    pgoff: area.vm_pgoff,
    path,
    // vma_is_anonymous()
    isAnonymous: area.vm_ops === 0n,
    isHugetlb: (area.vm_flags.low & VM.hugetlb) !== 0,
    special,
  };
}

/**
 * The memory areas of a process, ascending, with what its /proc/PID/coredump_filter wants of each. An area
 * that cannot be read is left out, with a sentence.
 */
export function readAreas(kernel: Kernel, mm: Mm, memory: UserMemory): CoreAreas {
  const areas: CoreArea[] = [];
  const missing: string[] = [];
  const filter = coredumpFilterOf(mm);
  try {
    for (const area of forEachVma(kernel, mm)) {
      try {
        areas.push(coreArea(kernel, area, filter, memory));
      } catch (error) {
        if (!isDamage(error)) throw error;
        missing.push(`the memory area at ${hex(area.vm_start)} is missing: ${error.message}`);
      }
    }
  } catch (error) {
    if (!isDamage(error)) throw error;
    missing.push(`memory areas from ${hex(areas.at(-1)?.end ?? 0)} on are missing: ${error.message}`);
    return { areas, missing };
  }
  const counted = readable(() => mm.map_count);
  if (counted !== areas.length + missing.length) {
    missing.push(`memory areas: the kernel counted ${counted}, ${areas.length} were found`);
  }
  return { areas, missing };
}
