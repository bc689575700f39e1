import type { OpenFile } from '../../../model/file.ts';
import { FdTypes } from '../proto/gen/files_pb.ts';
import { eventfd, eventpoll, inotify, memfd, signalfd, timerfd, writeMemfds } from './anonymous.ts';
import { standInOf, writeRings } from './io-uring.ts';
import type { ImageKind } from './kind.ts';
import { regFile, writeGhosts, writeRemap } from './path.ts';
import { fifoEntry, openedFifo, pipeEntry, writeFifos, writePipes } from './pipe.ts';
import { inetEntry, netlinkEntry, peerOf, unixEntry, writeUnixQueue } from './socket.ts';
import { writeTcpStream } from './tcp-stream.ts';
import { terminalFile, writeTerminals } from './terminal.ts';

type FileKinds = {
  readonly [Type in OpenFile['type']]: ImageKind<Extract<OpenFile, { readonly type: Type }>>;
};

/** All kinds of open files. One that the model has and this list has not does not compile. */
export const fileKinds: FileKinds = {
  path: {
    fileType: FdTypes.REG,
    entry: (file) => ({ reg: regFile(file) }),
    also: (file, images) => writeRemap(images, file),
    shared: writeGhosts,
  },
  pipe: {
    fileType: FdTypes.PIPE,
    entry: (file) => ({ pipe: pipeEntry(file) }),
    shared: writePipes,
  },
  fifo: {
    fileType: FdTypes.FIFO,
    entry: (file) => ({ fifo: fifoEntry(file) }),
    as: openedFifo,
    before: ({ pathFile }) => [pathFile],
    shared: writeFifos,
  },
  unix: {
    fileType: FdTypes.UNIXSK,
    entry: (file) => ({ usk: unixEntry(file) }),
    before: peerOf,
    also: (file, images, source) => writeUnixQueue(images, source, file),
  },
  inet: {
    fileType: FdTypes.INETSK,
    entry: (file) => ({ isk: inetEntry(file) }),
    also: (file, images, source) => writeTcpStream(images, source, file),
  },
  netlink: { fileType: FdTypes.NETLINKSK, entry: (file) => ({ nlsk: netlinkEntry(file) }) },
  terminal: {
    fileType: FdTypes.TTY,
    entry: (file, { terminals }) => ({ tty: terminalFile(file, terminals) }),
    before: ({ pathFile }) => [pathFile],
    shared: writeTerminals,
  },
  eventfd: { fileType: FdTypes.EVENTFD, entry: (file) => ({ efd: eventfd(file) }) },
  eventpoll: { fileType: FdTypes.EVENTPOLL, entry: (file) => ({ epfd: eventpoll(file) }) },
  timerfd: { fileType: FdTypes.TIMERFD, entry: (file) => ({ tfd: timerfd(file) }) },
  signalfd: { fileType: FdTypes.SIGNALFD, entry: (file) => ({ sgfd: signalfd(file) }) },
  inotify: { fileType: FdTypes.INOTIFY, entry: (file) => ({ ify: inotify(file) }) },
  'io-uring': {
    fileType: FdTypes.REG,
    as: standInOf,
    entry: (file) => ({ reg: regFile(standInOf(file)) }),
    shared: writeRings,
  },
  memfd: {
    fileType: FdTypes.MEMFD,
    entry: (file) => ({ memfd: memfd(file) }),
    shared: writeMemfds,
  },
};

/**
 * The kind of one file. That its methods take any file is for the caller's sake: it is to be asked about this
 * one.
 */
export function kindOf(file: OpenFile): ImageKind<OpenFile> {
  return fileKinds[file.type];
}
