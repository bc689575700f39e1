import { fileStruct, inodeStruct, major, minor, superBlockStruct } from '../linux/fs.ts';
import { specialMappingName, VM } from '../linux/mm.ts';
import { type Mm, type VmArea, vmAreaStruct } from '../linux/mm-types.ts';
import { forEachVma } from '../linux/readers/vma.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { isDamage, readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Flags } from '../vmcore/view.ts';
import { openFileName } from './file-name.ts';
import type { Inspection } from './inspection.ts';
import { commOf, listProcesses, mmOf, requireTask } from './tasks.ts';

/** One memory area, with what a line of /proc/PID/maps says. Addresses and offset in bytes. */
export interface MapRow {
  readonly start: number;
  readonly end: number;
  readonly permissions: string;
  readonly offset: number;
  readonly device: string;
  readonly inode: number;
  readonly name: string;
  /** Why parts of it are not known; these are 0, or `?`. */
  readonly problem?: string;
}

/** What could be read of a process's memory areas. */
export interface Maps {
  readonly rows: readonly MapRow[];
  /** Sentences about areas that are missing; empty if none is. */
  readonly missing: readonly string[];
}

/** The [vsyscall] page, mapped by the kernel into every 64-bit process (arch/x86/entry/vsyscall). */
const VSYSCALL = 0xffff_ffff_ff60_0000n;
/** enum of `vsyscall_mode`. */
const VSYSCALL_NONE = 2;

function permissions({ low }: Flags): string {
  const bit = (mask: number, letter: string): string => ((low & mask) !== 0 ? letter : '-');
  return bit(VM.read, 'r') + bit(VM.write, 'w') + bit(VM.exec, 'x') + ((low & VM.mayShare) !== 0 ? 's' : 'p');
}

function anonymousName(kernel: Kernel, mm: Mm, area: VmArea): string {
  const special = specialMappingName(kernel, area);
  if (special !== undefined) return special;
  if (area.vm_start <= mm.brk && area.vm_end >= mm.start_brk) return '[heap]';
  if (area.vm_start <= mm.start_stack && area.vm_end >= mm.start_stack) return '[stack]';
  return '';
}

/** What a line says of the mapped file. */
type MappedFile = Pick<MapRow, 'device' | 'inode' | 'name'>;

/** The files of a dump by mount and dentry: most are libraries that all processes map. */
const filesByKernel = new WeakMap<Kernel, Map<string, MappedFile>>();

function mappedFile(kernel: Kernel, address: bigint): MappedFile {
  const known = filesByKernel.get(kernel) ?? new Map<string, MappedFile>();
  filesByKernel.set(kernel, known);
  const file = kernel.bind(fileStruct).at(address);
  const key = `${file.f_mnt} ${file.f_dentry}`;
  const found = known.get(key);
  if (found !== undefined) return found;
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  const { s_dev } = kernel.bind(superBlockStruct).at(inode.i_sb);
  const result = {
    device: [major(s_dev), minor(s_dev)].map((part) => part.toString(16).padStart(2, '0')).join(':'),
    inode: inode.i_ino,
    // The kernel shows newlines in names as it shows them here
    name: openFileName(kernel, file, inode).replaceAll('\n', '\\012'),
  };
  known.set(key, result);
  return result;
}

function mapRow(kernel: Kernel, mm: Mm, area: VmArea): MapRow {
  const range = { start: area.vm_start, end: area.vm_end };
  try {
    const common = { ...range, permissions: permissions(area.vm_flags) };
    if (area.vm_file === 0n) {
      return { ...common, offset: 0, device: '00:00', inode: 0, name: anonymousName(kernel, mm, area) };
    }
    return { ...common, offset: area.vm_pgoff * PAGE_SIZE, ...mappedFile(kernel, area.vm_file) };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const known = readable(() => permissions(area.vm_flags)) ?? '????';
    const unknown = { offset: 0, device: '??:??', inode: 0, name: '?' };
    return { ...range, permissions: known, ...unknown, problem: error.message };
  }
}

/**
 * Memory areas of a process, ascending, as far as they can be read; none for a kernel thread. Throws a
 * VmcoreError if there is no such process.
 */
export function readMaps(kernel: Kernel, pid: number): Maps {
  const task = requireTask(kernel, pid);
  if (task.mm === 0n) return { rows: [], missing: [] };
  const mm = mmOf(kernel, task);
  const rows: MapRow[] = [];
  try {
    for (const area of forEachVma(kernel, mm)) rows.push(mapRow(kernel, mm, area));
    return { rows, missing: lackOf(rows.length, mm.map_count) };
  } catch (error) {
    if (!isDamage(error)) throw error;
    const after = rows.at(-1)?.end ?? 0;
    const counted = readable(() => mm.map_count - rows.length);
    const count = counted === undefined || counted <= 0 ? 'some' : String(counted);
    return { rows, missing: [`${count} areas from ${hexNumber(after)} on are missing: ${error.message}`] };
  }
}

function lackOf(found: number, counted: number): string[] {
  return found === counted
    ? []
    : [`some areas are missing, or too many: the kernel counted ${counted}, ${found} were found`];
}

/**
 * Width at which the kernel starts the name (fs/proc/task_mmu.c: 25 characters and 6 for each byte of a
 * pointer).
 */
const NAME_COLUMN = 73;

function formatRow(row: MapRow): string {
  const address = (value: number): string => value.toString(16).padStart(8, '0');
  const line = `${address(row.start)}-${address(row.end)} ${row.permissions} ${address(row.offset)} ${row.device} ${row.inode} `;
  const name = row.problem === undefined ? row.name : `${row.name} --- ${row.problem}`;
  return name === '' ? line : line.padEnd(NAME_COLUMN) + name;
}

/** The line of the vsyscall page, if the kernel shows one. */
function gateLine(kernel: Kernel): string[] {
  const gate = kernel.symbolMaybe('gate_vma');
  const mode = kernel.symbolMaybe('vsyscall_mode');
  if (gate === undefined || mode === undefined || kernel.memory.u32(mode) === VSYSCALL_NONE) return [];
  const range = `${VSYSCALL.toString(16)}-${(VSYSCALL + BigInt(PAGE_SIZE)).toString(16)}`;
  const flags = permissions(kernel.bind(vmAreaStruct).at(gate).vm_flags);
  return [`${`${range} ${flags} 00000000 00:00 0 `.padEnd(NAME_COLUMN)}[vsyscall]`];
}

/** What is wrong with a process's map, as sentences that name it. */
function problemsOf(pid: number, comm: string, { rows, missing }: Maps): string[] {
  const doubtful = rows.filter(({ problem }) => problem !== undefined);
  const [first] = doubtful;
  const sentences =
    first === undefined
      ? missing
      : [
          ...missing,
          `${doubtful.length} areas cannot be read whole (${hexNumber(first.start)}: ${first.problem})`,
        ];
  return sentences.map((sentence) => `process ${pid} (${comm}): ${sentence}`);
}

function mapsJson({ rows, missing }: Maps): object {
  const maps = rows.map((row) => ({ ...row, start: hexNumber(row.start), end: hexNumber(row.end) }));
  return { maps, missing };
}

function mapsText(kernel: Kernel, { rows, missing }: Maps): string {
  return [
    ...rows.map(formatRow),
    ...missing.map((sentence) => `--- ${sentence}`),
    ...(rows.length > 0 ? gateLine(kernel) : []),
  ].join('\n');
}

function mapsOrProblem(kernel: Kernel, pid: number): Maps {
  try {
    return readMaps(kernel, pid);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return { rows: [], missing: [`all areas are missing: ${error.message}`] };
  }
}

/** The memory maps of all user processes; what is missing of one stands in its place. */
export function allMapsInspection(kernel: Kernel): Inspection {
  const { rows, unreadable, damage } = listProcesses(kernel);
  const processes = rows
    .filter(({ hasMemory }) => hasMemory)
    .map(({ pid, comm }) => ({ pid, comm, maps: mapsOrProblem(kernel, pid) }));
  const lost = unreadable.map(({ task, problem }) => `${task} cannot be read: ${problem}`);
  return {
    json: () => ({
      processes: processes.map(({ pid, comm, maps }) => ({ pid, comm, ...mapsJson(maps) })),
      unreadable,
    }),
    text: () =>
      [
        ...processes.map(({ pid, comm, maps }) => `${pid} ${comm}\n${mapsText(kernel, maps)}`),
        ...lost.map((sentence) => `--- ${sentence}`),
      ].join('\n\n'),
    problems: [
      ...damage,
      ...lost,
      ...processes.flatMap(({ pid, comm, maps }) => problemsOf(pid, comm, maps)),
    ],
  };
}

/** The memory map of a process, character for character as /proc/PID/maps had it. */
export function mapsInspection(kernel: Kernel, pid: number): Inspection {
  const maps = mapsOrProblem(kernel, pid);
  const comm = commOf(requireTask(kernel, pid));
  const isEmpty = maps.rows.length + maps.missing.length === 0;
  return {
    json: () => ({ pid, ...mapsJson(maps) }),
    text: () => mapsText(kernel, maps),
    remarks: isEmpty ? [`process ${pid} (${comm}) has no memory: a kernel thread, or it has ended`] : [],
    problems: problemsOf(pid, comm, maps),
  };
}

function hexNumber(value: number): string {
  return `0x${value.toString(16)}`;
}
