import { fileStruct } from '../linux/file.ts';
import { inodeStruct, major, minor, superBlockStruct } from '../linux/fs.ts';
import { type Mm, mmStruct, specialMappingName, type VmArea } from '../linux/mm.ts';
import { VM } from '../linux/vm-flags.ts';
import { forEachVma } from '../linux/vma.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type Flags, flags, struct } from '../vmcore/view.ts';
import { openFileName } from './file-name.ts';
import type { Report } from './report.ts';
import { listProcesses, requireTask } from './tasks.ts';

/** One memory area, with what a line of /proc/PID/maps says. Addresses and offset in bytes. */
export interface MapRow {
  readonly start: number;
  readonly end: number;
  readonly permissions: string;
  readonly offset: number;
  readonly device: string;
  readonly inode: number;
  readonly name: string;
}

const PAGE = 4096;
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
  const common = { start: area.vm_start, end: area.vm_end, permissions: permissions(area.vm_flags) };
  if (area.vm_file === 0n) {
    return { ...common, offset: 0, device: '00:00', inode: 0, name: anonymousName(kernel, mm, area) };
  }
  return { ...common, offset: area.vm_pgoff * PAGE, ...mappedFile(kernel, area.vm_file) };
}

/** Memory areas of a process, ascending; empty for a kernel thread. Throws a VmcoreError where structures are damaged. */
export function listMaps(kernel: Kernel, pid: number): MapRow[] {
  const task = requireTask(kernel, pid);
  if (task.mm === 0n) return [];
  const mm = kernel.bind(mmStruct).at(task.mm);
  const rows: MapRow[] = [];
  for (const area of forEachVma(kernel, mm)) rows.push(mapRow(kernel, mm, area));
  if (rows.length !== mm.map_count) {
    throw new VmcoreError(
      `process ${pid} is damaged: it has ${mm.map_count} areas, but ${rows.length} were found`,
    );
  }
  return rows;
}

/** Width at which the kernel starts the name (fs/proc/task_mmu.c: 25 characters and 6 for each byte of a pointer). */
const NAME_COLUMN = 73;

function formatRow(row: MapRow): string {
  const address = (value: number): string => value.toString(16).padStart(8, '0');
  const line = `${address(row.start)}-${address(row.end)} ${row.permissions} ${address(row.offset)} ${row.device} ${row.inode} `;
  return row.name === '' ? line : line.padEnd(NAME_COLUMN) + row.name;
}

const gateVma = struct('vm_area_struct', { vm_flags: flags });

/** The line of the vsyscall page, if the kernel shows one. */
function gateLine(kernel: Kernel): string[] {
  const gate = kernel.symbolMaybe('gate_vma');
  const mode = kernel.symbolMaybe('vsyscall_mode');
  if (gate === undefined || mode === undefined || kernel.memory.u32(mode) === VSYSCALL_NONE) return [];
  const range = `${VSYSCALL.toString(16)}-${(VSYSCALL + BigInt(PAGE)).toString(16)}`;
  const flags = permissions(kernel.bind(gateVma).at(gate).vm_flags);
  return [`${`${range} ${flags} 00000000 00:00 0 `.padEnd(NAME_COLUMN)}[vsyscall]`];
}

/** The memory maps of all user processes; one that is damaged has its problem in place of its map. */
export function allMapsReport(kernel: Kernel): Report {
  const { rows, unreadable, damage } = listProcesses(kernel);
  const processes = rows
    .filter(({ rssKib }) => rssKib !== undefined)
    .map(({ pid, comm }) => ({ pid, comm, maps: mapsOrProblem(kernel, pid) }));
  return {
    json: () => ({
      processes: processes.map(({ pid, comm, maps }) => ({ pid, comm, ...mapsJson(maps) })),
    }),
    text: () =>
      processes.map(({ pid, comm, maps }) => `${pid} ${comm}\n${mapsText(kernel, maps)}`).join('\n\n'),
    problems: [...damage, ...unreadable.map(({ task, problem }) => `${task}: ${problem}`)],
  };
}

function mapsOrProblem(kernel: Kernel, pid: number): MapRow[] | VmcoreError {
  try {
    return listMaps(kernel, pid);
  } catch (error) {
    if (error instanceof VmcoreError) return error;
    throw error;
  }
}

function mapsJson(maps: MapRow[] | VmcoreError): { maps: unknown[] } | { problem: string } {
  if (maps instanceof VmcoreError) return { problem: maps.message };
  return { maps: maps.map((row) => ({ ...row, start: hexNumber(row.start), end: hexNumber(row.end) })) };
}

function mapsText(kernel: Kernel, maps: MapRow[] | VmcoreError): string {
  if (maps instanceof VmcoreError) return maps.message;
  return [...maps.map(formatRow), ...(maps.length > 0 ? gateLine(kernel) : [])].join('\n');
}

/** The memory map of a process, character for character as /proc/PID/maps had it. */
export function mapsReport(kernel: Kernel, pid: number): Report {
  const rows = listMaps(kernel, pid);
  const { comm } = requireTask(kernel, pid);
  return {
    json: () => ({ pid, ...mapsJson(rows) }),
    text: () => mapsText(kernel, rows),
    remarks:
      rows.length > 0 ? [] : [`process ${pid} (${comm}) has no memory: a kernel thread, or it has ended`],
  };
}

function hexNumber(value: number): string {
  return `0x${value.toString(16)}`;
}
