import type { FileKind as KernelKind } from '../../linux/readers/file-kind.ts';
import type { GroupFiles, OpenFile } from '../../model/file.ts';
import { mapAioRing } from '../aio.ts';
import { mapSegment } from '../ipc/segments.ts';
import type { PartMakers } from '../parts.ts';
import { captureEventfd, captureInotify, captureSignalfd, captureTimerfd } from './anonymous.ts';
import type { CaptureContext } from './context.ts';
import { captureEventpoll } from './eventpoll.ts';
import { captureIoUring } from './io-uring.ts';
import type { CaptureFile, CaptureKind, GroupSelection, MemoryKind } from './kind.ts';
import { collectLocks, locksOf } from './locks.ts';
import { captureMemfd, mapMemfd, memfdsOf } from './memory/memfd.ts';
import type { MemoryFileKind } from './memory/memory-file.ts';
import { mapAnonymous } from './memory/shared-memory.ts';
import { noteOffset } from './path/path.ts';
import { directoriesOf, filesToCheckOf, filesToMakeOf, ghostsOf, unwrittenOf } from './path/path-files.ts';
import { capturePipe, pipesOf } from './pipe.ts';
import { FileRefusal } from './refusal.ts';
import { captureSocket } from './sockets/socket.ts';
import { socketPaths } from './sockets/unix/unix-file.ts';
import { captureHungUpTerminal, isHungUp } from './terminal/hung-up-terminal.ts';
import { captureTerminal, noteLostTerminals, terminalsOf } from './terminal/terminal.ts';

/** Everything that the capture has of kinds of files: a further kind is a file of its own, and lines here. */

/** How an open file is captured, by its operations. What is not listed is refused by its name. */
export const captures: Readonly<Partial<Record<KernelKind, CaptureFile>>> = {
  pipe: capturePipe,
  socket: captureSocket,
  tty: captureTerminal,
  'hung-up-tty': captureHungUpTerminal,
  eventfd: captureEventfd,
  eventpoll: captureEventpoll,
  timerfd: captureTimerfd,
  signalfd: captureSignalfd,
  inotify: captureInotify,
  io_uring: captureIoUring,
};

function refuse(reason: string): () => never {
  return () => {
    throw new FileRefusal(reason);
  };
}

/** Memory that is a file without a path. */
export const memoryKinds: Readonly<Record<MemoryFileKind, MemoryKind>> = {
  memfd: { open: captureMemfd, map: mapMemfd },
  anonymous: { open: refuse('has memory of the kernel open as a file'), map: mapAnonymous },
  sysv: {
    open: refuse('has a System V shared memory segment open as a file'),
    map: mapSegment,
  },
  aio: { open: refuse('has the ring of an asynchronous I/O context open as a file'), map: mapAioRing },
  other: {
    open: refuse('has memory of the kernel open as a file'),
    map: refuse('has a mapping of huge pages or of memory of the kernel'),
  },
};

type FileKinds = {
  readonly [Type in OpenFile['type']]: CaptureKind<Extract<OpenFile, { readonly type: Type }>>;
};

/** What captured files are. A kind that the model has and this list has not does not compile. */
export const fileKinds: FileKinds = {
  path: { name: 'an open file', parted: noteOffset, pathFiles: (file) => [file] },
  pipe: { name: 'a pipe' },
  fifo: { name: 'a FIFO', pathFiles: ({ pathFile }) => [pathFile] },
  unix: { name: 'a unix socket', otherPaths: socketPaths },
  inet: { name: 'an IP socket' },
  netlink: { name: 'a netlink socket' },
  terminal: { name: 'a terminal', isParted: isHungUp, pathFiles: ({ pathFile }) => [pathFile] },
  eventfd: { name: 'an eventfd' },
  eventpoll: { name: 'an epoll' },
  timerfd: { name: 'a timerfd' },
  signalfd: { name: 'a signalfd' },
  inotify: { name: 'an inotify' },
  'io-uring': { name: 'an io_uring' },
  memfd: { name: 'a memfd', shmid: ({ inodeId }) => inodeId },
};

/**
 * The kind of one file. That its methods take any file is for the caller's sake: it is to be asked about this
 * one.
 */
export function kindOf(file: OpenFile): CaptureKind<OpenFile> {
  return fileKinds[file.type];
}

/** What is found out about all files together, once every file table is captured. */
export const collectors: readonly ((context: CaptureContext) => void)[] = [noteLostTerminals, collectLocks];

type GroupParts = PartMakers<Omit<GroupFiles, 'files' | 'tables'>, GroupSelection>;

/**
 * What a group has besides its files and descriptors. Each may throw a FileRefusal: the group cannot come
 * back as it was.
 */
export const groupParts: GroupParts = {
  pipes: pipesOf,
  ghosts: ghostsOf,
  terminals: terminalsOf,
  memfds: memfdsOf,
  locks: locksOf,
  directoriesToMake: directoriesOf,
  filesToMake: filesToMakeOf,
  filesToCheck: filesToCheckOf,
  unwritten: unwrittenOf,
};
