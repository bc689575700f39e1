import type { OpenFile } from '../../../model/file.ts';
import { FileType } from '../proto/gen/files_pb.ts';
import { eventfd, eventpoll, inotify, memfd, signalfd, timerfd, writeMemfds } from './anonymous.ts';
import type { FileKind } from './kind.ts';
import { regFile, writeGhosts, writeRemap } from './path.ts';
import { fifoEntry, openedFifo, pipeEntry, writeFifos, writePipes } from './pipe.ts';
import { inetEntry, netlinkEntry, peerOf, unixEntry, writeUnixQueue } from './socket.ts';
import { terminalFile, writeTerminals } from './terminal.ts';

type FileKinds = {
  readonly [Type in OpenFile['type']]: FileKind<Extract<OpenFile, { readonly type: Type }>>;
};

/** All kinds of open files. Whoever adds one to the model adds it here, and nowhere else in this directory. */
export const fileKinds: FileKinds = {
  path: {
    fileType: FileType.REG,
    entry: (file) => ({ reg: regFile(file) }),
    also: (file, images) => writeRemap(images, file),
    shared: writeGhosts,
  },
  pipe: {
    fileType: FileType.PIPE,
    entry: (file) => ({ pipe: pipeEntry(file) }),
    shared: writePipes,
  },
  fifo: {
    fileType: FileType.FIFO,
    entry: (file) => ({ fifo: fifoEntry(file) }),
    as: openedFifo,
    before: ({ pathFile }) => [pathFile],
    shared: writeFifos,
  },
  unix: {
    fileType: FileType.UNIXSK,
    entry: (file) => ({ usk: unixEntry(file) }),
    before: peerOf,
    also: (file, images, source) => writeUnixQueue(images, source, file),
  },
  inet: { fileType: FileType.INETSK, entry: (file) => ({ isk: inetEntry(file) }) },
  netlink: { fileType: FileType.NETLINKSK, entry: (file) => ({ nlsk: netlinkEntry(file) }) },
  terminal: {
    fileType: FileType.TTY,
    entry: (file, { terminals }) => ({ tty: terminalFile(file, terminals) }),
    before: ({ pathFile }) => [pathFile],
    shared: writeTerminals,
  },
  eventfd: { fileType: FileType.EVENTFD, entry: (file) => ({ efd: eventfd(file) }) },
  eventpoll: { fileType: FileType.EVENTPOLL, entry: (file) => ({ epfd: eventpoll(file) }) },
  timerfd: { fileType: FileType.TIMERFD, entry: (file) => ({ tfd: timerfd(file) }) },
  signalfd: { fileType: FileType.SIGNALFD, entry: (file) => ({ sgfd: signalfd(file) }) },
  inotify: { fileType: FileType.INOTIFY, entry: (file) => ({ ify: inotify(file) }) },
  memfd: {
    fileType: FileType.MEMFD,
    entry: (file) => ({ memfd: memfd(file) }),
    shared: writeMemfds,
  },
};

/** The kind of one file. That its methods take any file is for the caller's sake: it is to be asked about this one. */
export function kindOf(file: OpenFile): FileKind<OpenFile> {
  return fileKinds[file.type];
}
