import { type FdSlot, fdSlots } from '../linux/fdtable.ts';
import { fileAt, filePosition, openFlags } from '../linux/file.ts';
import { type File, inodeStruct } from '../linux/fs.ts';
import { fileType, typeOf } from '../system/file-mode.ts';
import { isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { openFileName } from './file-name.ts';
import { alignedTable, type Inspection } from './inspection.ts';
import { commOf, requireTask } from './tasks.ts';

/** One open file descriptor. */
export interface FileRow {
  readonly fd: number;
  readonly type: string;
  /** r, w or rw, and what else open(2) was told. */
  readonly mode: string;
  readonly position: number;
  /** What readlink of /proc/PID/fd/N gives. */
  readonly name: string;
  /** Why the row is doubtful, or parts of it are not known; these are 0, or `?`. */
  readonly problem?: string;
}

const TYPE_NAMES = new Map<number, string>([
  [fileType.socket, 'socket'],
  [fileType.symlink, 'link'],
  [fileType.regular, 'file'],
  [fileType.block, 'block'],
  [fileType.directory, 'dir'],
  [fileType.character, 'char'],
  [fileType.fifo, 'fifo'],
]);
function modeText(file: File, slot: FdSlot): string {
  const access = ['r', 'w', 'rw'][file.f_flags & openFlags.accessMode] ?? '?';
  const flag = (bit: number, name: string): string => ((file.f_flags & bit) !== 0 ? `,${name}` : '');
  const cloexec = slot.closeOnExec ? ',cloexec' : '';
  return access + flag(openFlags.append, 'append') + flag(openFlags.nonblock, 'nonblock') + cloexec;
}

function fileRow(kernel: Kernel, slot: FdSlot): FileRow {
  const { fd } = slot;
  if (slot.file === 0n) return unknownRow(fd, 'no file is there: it is being opened, or damaged');
  const file = fileAt(kernel, slot.file);
  if (file === undefined) return unknownRow(fd, 'no open file is there');
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  return {
    fd,
    type: TYPE_NAMES.get(typeOf(inode.i_mode)) ?? 'anon',
    mode: modeText(file, slot),
    position: Number(filePosition(file)),
    name: openFileName(kernel, file, inode),
    ...(slot.inBitmap ? {} : { problem: 'the table does not count it as open' }),
  };
}

function unknownRow(fd: number, problem: string): FileRow {
  return { fd, type: '?', mode: '?', position: 0, name: '?', problem };
}

function readableRow(kernel: Kernel, slot: FdSlot): FileRow {
  try {
    return fileRow(kernel, slot);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return unknownRow(slot.fd, error.message);
  }
}

/**
 * Open files of a process by descriptor; a damaged one is listed as such. Throws a VmcoreError if the table
 * is.
 */
export function listFiles(kernel: Kernel, pid: number): FileRow[] {
  const { files } = requireTask(kernel, pid);
  if (files === 0n) return [];
  return fdSlots(kernel, files).map((slot) => readableRow(kernel, slot));
}

/** Open files of a process. */
export function filesInspection(kernel: Kernel, pid: number): Inspection {
  const rows = listFiles(kernel, pid);
  const task = requireTask(kernel, pid);
  const name = ({ name: shown, problem }: FileRow): string =>
    problem === undefined ? shown : `${shown} --- ${problem}`;
  return {
    remarks: task.files === 0n ? [`process ${pid} (${commOf(task)}) has no file table: it has ended`] : [],
    problems: rows.flatMap(({ fd, problem }) =>
      problem === undefined ? [] : [`descriptor ${fd}: ${problem}`],
    ),
    json: () => ({ pid, files: rows }),
    text: () =>
      alignedTable(
        ['FD', 'TYPE', 'MODE', 'POSITION', 'NAME'],
        rows.map((row) => [row.fd, row.type, row.mode, row.position, name(row)]),
      ),
  };
}
