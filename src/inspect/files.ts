import { dentryName, dentryStruct, resolvePath } from '../linux/dcache.ts';
import { type FdSlot, fdSlots } from '../linux/fdtable.ts';
import { type File, fileAt, filePosition, openFlags } from '../linux/file.ts';
import { fileSystemOf, fileType, inodeStruct } from '../linux/fs.ts';
import { isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type Report, table } from './report.ts';
import { requireTask } from './tasks.ts';

/** One open file descriptor. */
export interface FileRow {
  readonly fd: number;
  readonly type: string;
  /** r, w or rw, and what else open(2) was told. */
  readonly mode: string;
  readonly position: number;
  /** What readlink of /proc/PID/fd/N gives. */
  readonly name: string;
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
/** File systems without paths: their files are named by type and inode number (d_dname of each). */
const NUMBERED = new Map([
  ['pipefs', 'pipe'],
  ['sockfs', 'socket'],
]);

function modeText(file: File, slot: FdSlot): string {
  const access = ['r', 'w', 'rw'][file.f_flags & openFlags.accessMode] ?? '?';
  const flag = (bit: number, name: string): string => ((file.f_flags & bit) !== 0 ? `,${name}` : '');
  const cloexec = slot.closeOnExec ? ',cloexec' : '';
  return access + flag(openFlags.append, 'append') + flag(openFlags.nonblock, 'nonblock') + cloexec;
}

function fileNameOf(kernel: Kernel, file: File, inodeNumber: number, superBlock: bigint): string {
  const { name } = fileSystemOf(kernel, superBlock);
  const kind = NUMBERED.get(name);
  if (kind !== undefined) return `${kind}:[${inodeNumber}]`;
  if (name === 'anon_inodefs')
    return `anon_inode:${dentryName(kernel, kernel.bind(dentryStruct).at(file.f_dentry))}`;
  const { path, deleted } = resolvePath(kernel, file.f_mnt, file.f_dentry);
  return path + (deleted ? ' (deleted)' : '');
}

function fileRow(kernel: Kernel, slot: FdSlot): FileRow {
  const file = fileAt(kernel, slot.file);
  if (file === undefined)
    return { fd: slot.fd, type: '?', mode: '?', position: 0, name: 'damaged: no open file is there' };
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  return {
    fd: slot.fd,
    type: TYPE_NAMES.get(inode.i_mode & fileType.mask) ?? 'anon',
    mode: modeText(file, slot),
    position: Number(filePosition(file)),
    name: fileNameOf(kernel, file, inode.i_ino, inode.i_sb),
  };
}

function readableRow(kernel: Kernel, slot: FdSlot): FileRow {
  try {
    return fileRow(kernel, slot);
  } catch (error) {
    if (!isDamage(error)) throw error;
    return { fd: slot.fd, type: '?', mode: '?', position: 0, name: `damaged: ${error.message}` };
  }
}

/** Open files of a process; a damaged one is listed as such. */
export function filesReport(kernel: Kernel, pid: number): Report {
  const { files } = requireTask(kernel, pid);
  const rows =
    files === 0n
      ? []
      : fdSlots(kernel, files)
          .filter(({ file }) => file !== 0n)
          .map((slot) => readableRow(kernel, slot));
  return {
    json: () => ({ pid, files: rows }),
    text: () =>
      table(
        ['FD', 'TYPE', 'MODE', 'POSITION', 'NAME'],
        rows.map(({ fd, type, mode, position, name }) => [fd, type, mode, position, name]),
      ),
  };
}
