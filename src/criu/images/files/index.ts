import type { MessageInitShape } from '@bufbuild/protobuf';
import type { FdTable, FileLock, GroupFiles, OpenFile } from '../../../model/file.ts';
import type { PathFile } from '../../../model/open-file.ts';
import type { Terminal } from '../../../model/terminal.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import { FdinfoEntrySchema, FileEntrySchema, FileLockEntrySchema, FileType } from '../proto/gen/files_pb.ts';
import { eventfd, eventpoll, inotify, memfd, signalfd, timerfd, writeMemfdInode } from './anonymous.ts';
import { head } from './common.ts';
import { regFile, writeGhost, writeRemap } from './path.ts';
import { openedFifo, writePipeData } from './pipe.ts';
import { inetEntry, netlinkEntry, unixEntry, writeUnixQueue } from './socket.ts';
import { terminalFile, writeTerminal } from './terminal.ts';

type FileEntry = MessageInitShape<typeof FileEntrySchema>;

const types: Readonly<Record<OpenFile['type'], FileType>> = {
  path: FileType.REG,
  pipe: FileType.PIPE,
  fifo: FileType.FIFO,
  unix: FileType.UNIXSK,
  inet: FileType.INETSK,
  netlink: FileType.NETLINKSK,
  terminal: FileType.TTY,
  eventfd: FileType.EVENTFD,
  eventpoll: FileType.EVENTPOLL,
  timerfd: FileType.TIMERFD,
  signalfd: FileType.SIGNALFD,
  inotify: FileType.INOTIFY,
  memfd: FileType.MEMFD,
};

function fileEntry(file: OpenFile, terminals: ReadonlyMap<number, Terminal>): FileEntry {
  const common = { type: types[file.type], id: file.id };
  switch (file.type) {
    case 'path':
      return { ...common, reg: regFile(file) };
    case 'pipe':
      return { ...common, pipe: { ...head(file), pipeId: file.pipeId } };
    case 'fifo':
      return { ...common, fifo: { id: file.id, pipeId: file.pipeId, regfId: file.pathFile.id } };
    case 'unix':
      return { ...common, usk: unixEntry(file) };
    case 'inet':
      return { ...common, isk: inetEntry(file) };
    case 'netlink':
      return { ...common, nlsk: netlinkEntry(file) };
    case 'terminal': {
      const terminal = terminals.get(file.terminalId);
      if (terminal === undefined)
        throw new Error(`terminal ${file.terminalId} of file ${file.id} is not in the model`);
      return { ...common, tty: terminalFile(file, terminal) };
    }
    case 'eventfd':
      return { ...common, efd: eventfd(file) };
    case 'eventpoll':
      return { ...common, epfd: eventpoll(file) };
    case 'timerfd':
      return { ...common, tfd: timerfd(file) };
    case 'signalfd':
      return { ...common, sgfd: signalfd(file) };
    case 'inotify':
      return { ...common, ify: inotify(file) };
    case 'memfd':
      return { ...common, memfd: memfd(file) };
  }
}

/**
 * Files in the order in which CRIU has to read them: a unix socket after the one that it is connected to. A peer that comes later, and is not connected to
 * the socket in turn, is not found (try_resolve_unix_peer, criu/sk-unix.c).
 */
function peersFirst(files: readonly OpenFile[]): Iterable<OpenFile> {
  const sockets = new Map(files.flatMap((file) => (file.type === 'unix' ? [[file.inode, file]] : [])));
  const ordered = new Set<OpenFile>();
  for (const file of files) {
    const chain: OpenFile[] = [];
    for (let at: OpenFile | undefined = file; at !== undefined; ) {
      if (ordered.has(at) || chain.includes(at)) break;
      chain.unshift(at);
      at = at.type === 'unix' ? sockets.get(at.peerInode) : undefined;
    }
    for (const one of chain) ordered.add(one);
  }
  return ordered;
}

/** A path comes before what is opened by it. */
function withPaths(file: OpenFile): readonly (OpenFile | PathFile)[] {
  return file.type === 'fifo' || file.type === 'terminal' ? [file.pathFile, file] : [file];
}

function writeTable(images: ImageDirectory, table: FdTable, byId: ReadonlyMap<number, OpenFile>): void {
  const image = images.image('fdinfo', table.filesId);
  for (const { fd, fileId, closeOnExec } of table.descriptors) {
    const file = byId.get(fileId);
    if (file === undefined) throw new Error(`file ${fileId} of fd ${fd} is not in the model`);
    image.entry(FdinfoEntrySchema, { id: fileId, flags: closeOnExec ? 1 : 0, type: types[file.type], fd });
  }
}

/** FL_POSIX, FL_FLOCK and FL_OFD of criu/include/file-lock.h. */
const lockFlags = { posix: 1, flock: 2, ofd: 4 } as const;

function writeLock(images: ImageDirectory, { kind, type, pid, fd, start, length }: FileLock): void {
  images.image('filelocks').entry(FileLockEntrySchema, {
    flag: lockFlags[kind],
    type,
    pid,
    fd,
    start: BigInt(start),
    len: BigInt(length),
  });
}

/**
 * Writes the images of all files of a group: `files`, `fdinfo-*`, `remap-fpath`, `ghost-file-*`, `pipes-data`,
 * `fifo-data`, `sk-queues`, `tty-info`, `tty-data`, `memfd` and `filelocks`. Throws an ImageWriteError, or an
 * Error if the model names a file that it does not have.
 */
export function writeFileImages(files: GroupFiles, images: ImageDirectory, source: PageSource): void {
  const terminals = new Map(files.terminals.map((terminal) => [terminal.id, terminal]));
  const opened = files.files.map(openedFifo);
  const byId = new Map(opened.map((file) => [file.id, file]));
  const image = images.image('files');
  for (const file of [...peersFirst(opened)].flatMap(withPaths)) {
    image.entry(FileEntrySchema, fileEntry(file, terminals));
    if (file.type === 'path') writeRemap(images, file);
    if (file.type === 'unix') writeUnixQueue(images, source, file);
  }
  for (const table of files.tables) writeTable(images, table, byId);
  for (const pipe of files.pipes) writePipeData(images, source, pipe);
  for (const ghost of files.ghosts) writeGhost(images, source, ghost);
  for (const terminal of files.terminals) writeTerminal(images, terminal);
  for (const inode of files.memfds) writeMemfdInode(images, inode);
  for (const lock of files.locks) writeLock(images, lock);
}

/** Options of `criu restore` that the files of a group ask for. */
export function restoreOptions(files: GroupFiles): string[] {
  return files.locks.length > 0 ? ['--file-locks'] : [];
}
