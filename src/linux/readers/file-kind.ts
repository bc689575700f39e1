import { fileType, typeOf } from '../../system/file-mode.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { dentryName, dentryStruct } from '../dcache.ts';
import { fmode } from '../file.ts';
import { type File, type Inode, inodeStruct, major } from '../fs.ts';

/** What an open file is, told by its `f_op`. */
export type FileKind =
  | 'pipe'
  | 'socket'
  | 'tty'
  | 'hung-up-tty'
  | 'eventfd'
  | 'eventpoll'
  | 'timerfd'
  | 'signalfd'
  | 'inotify'
  | 'fanotify'
  | 'pidfd'
  | 'userfaultfd'
  | 'io_uring'
  | 'perf event'
  | 'BPF object'
  | 'namespace';

/** Symbols of the `struct file_operations` of each kind; a release has some of them. */
const operations: Readonly<Record<string, FileKind>> = {
  pipefifo_fops: 'pipe',
  socket_file_ops: 'socket',
  tty_fops: 'tty',
  console_fops: 'tty',
  ptmx_fops: 'tty',
  hung_up_tty_fops: 'hung-up-tty',
  eventfd_fops: 'eventfd',
  eventpoll_fops: 'eventpoll',
  timerfd_fops: 'timerfd',
  signalfd_fops: 'signalfd',
  inotify_fops: 'inotify',
  fanotify_fops: 'fanotify',
  pidfd_fops: 'pidfd',
  pidfs_file_operations: 'pidfd',
  userfaultfd_fops: 'userfaultfd',
  io_uring_fops: 'io_uring',
  perf_fops: 'perf event',
  bpf_map_fops: 'BPF object',
  bpf_prog_fops: 'BPF object',
  bpf_link_fops: 'BPF object',
  bpf_iter_fops: 'BPF object',
  ns_file_operations: 'namespace',
};

const kindsByKernel = new WeakMap<Kernel, ReadonlyMap<bigint, FileKind>>();

function kindsOf(kernel: Kernel): ReadonlyMap<bigint, FileKind> {
  let kinds = kindsByKernel.get(kernel);
  if (kinds === undefined) {
    const found = Object.entries(operations).flatMap(([symbol, kind]): [bigint, FileKind][] => {
      const address = kernel.symbolMaybe(symbol);
      return address === undefined ? [] : [[address, kind]];
    });
    kinds = new Map(found);
    kindsByKernel.set(kernel, kinds);
  }
  return kinds;
}

/** The kind that file operations stand for; undefined for a file with a path, whatever is behind it. */
export function fileKind(kernel: Kernel, fop: bigint): FileKind | undefined {
  return kindsOf(kernel).get(fop);
}

/** Names that anon_inode_getfile() gives to what has no inode of its own. */
const anonymousNames: Readonly<Partial<Record<FileKind, string>>> = {
  eventfd: '[eventfd]',
  eventpoll: '[eventpoll]',
  timerfd: '[timerfd]',
  signalfd: '[signalfd]',
  inotify: 'inotify',
  io_uring: '[io_uring]',
};

/**
 * TTY_MAJOR, TTYAUX_MAJOR and UNIX98_PTY_SLAVE_MAJOR with its eight numbers (include/uapi/linux/major.h):
 * nothing but terminals.
 */
const terminalMajors: ReadonlySet<number> = new Set([4, 5, 136, 137, 138, 139, 140, 141, 142, 143]);

/** Whether the inode and the name can be those of a file of this kind. */
function fits(kernel: Kernel, file: File, inode: Inode, kind: FileKind | undefined): boolean {
  const type = typeOf(inode.i_mode);
  switch (kind) {
    case 'pipe':
      return type === fileType.fifo;
    case 'socket':
      return type === fileType.socket;
    case 'tty':
    case 'hung-up-tty':
      return type === fileType.character;
    case undefined:
      if (type === fileType.character) return !terminalMajors.has(major(inode.i_rdev));
      return type !== fileType.fifo && type !== fileType.socket;
    default: {
      const name = anonymousNames[kind];
      return name === undefined || dentryName(kernel, kernel.bind(dentryStruct).at(file.f_dentry)) === name;
    }
  }
}

/**
 * Whether an open file's operations fit its inode, which says as well what it is. A file that was opened with
 * O_PATH has none. Throws a VmcoreError if the inode or the name cannot be read.
 */
export function kindFits(kernel: Kernel, file: File): boolean {
  if ((file.f_mode & fmode.path) !== 0) return true;
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  return fits(kernel, file, inode, fileKind(kernel, file.f_op));
}
