import type { MessageInitShape } from '@bufbuild/protobuf';
import type {
  EventFd,
  EventPoll,
  GroupFiles,
  Inotify,
  MemfdFile,
  MemfdInode,
  SignalFd,
  TimerFd,
} from '../../../model/file.ts';
import type { ImageDirectory } from '../image.ts';
import {
  type EventfdFileEntrySchema,
  type EventpollFileEntrySchema,
  type InotifyFileEntrySchema,
  type MemfdFileEntrySchema,
  MemfdInodeEntrySchema,
  type SignalfdEntrySchema,
  type TimerfdEntrySchema,
} from '../proto/gen/files_pb.ts';
import { head } from './common.ts';

const SECOND = 1_000_000_000n;
/** What an inode's file handle has room for (criu/include/fsnotify.h); with a path it is not looked at. */
const HANDLE_WORDS = 16;

export function eventfd(file: EventFd): MessageInitShape<typeof EventfdFileEntrySchema> {
  return { ...head(file), counter: file.count };
}

export function eventpoll(file: EventPoll): MessageInitShape<typeof EventpollFileEntrySchema> {
  const tfd = file.targets.map(({ fd, events, data }) => ({ id: file.id, tfd: fd, events, data }));
  return { ...head(file), tfd };
}

export function timerfd(file: TimerFd): MessageInitShape<typeof TimerfdEntrySchema> {
  const { remainingNanoseconds: value, intervalNanoseconds: interval } = file;
  return {
    ...head(file),
    clockid: file.clock,
    ticks: file.ticks,
    settimeFlags: file.settimeFlags,
    vsec: value / SECOND,
    vnsec: value % SECOND,
    isec: interval / SECOND,
    insec: interval % SECOND,
  };
}

export function signalfd(file: SignalFd): MessageInitShape<typeof SignalfdEntrySchema> {
  return { ...head(file), sigmask: file.mask };
}

export function inotify(file: Inotify): MessageInitShape<typeof InotifyFileEntrySchema> {
  const wd = file.watches.map((watch) => ({
    id: file.id,
    iIno: BigInt(watch.inode),
    mask: watch.mask,
    ignoredMask: 0,
    sDev: watch.device,
    wd: watch.wd,
    fHandle: { bytes: 8, type: 1, handle: new Array<bigint>(HANDLE_WORDS).fill(0n), path: watch.path },
  }));
  return { ...head(file), wd };
}

export function memfd(file: MemfdFile): MessageInitShape<typeof MemfdFileEntrySchema> {
  return { ...head(file), pos: file.position, inodeId: file.inodeId };
}

function writeMemfdInode(images: ImageDirectory, inode: MemfdInode): void {
  const { name, uid, gid, mode, sizeBytes, shmid, seals, inodeId } = inode;
  images.image('memfd').entry(MemfdInodeEntrySchema, {
    name,
    uid,
    gid,
    mode,
    size: BigInt(sizeBytes),
    shmid,
    seals,
    inodeId: BigInt(inodeId),
  });
}

/** `memfd.img`; the content is in `pagemap-shmem-SHMID.img`. */
export function writeMemfds({ memfds }: GroupFiles, images: ImageDirectory): void {
  for (const inode of memfds) writeMemfdInode(images, inode);
}
