import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, struct, u32 } from '../vmcore/view.ts';
import { inodeStruct } from './fs.ts';
import { fsnotifyGroupStruct, fsnotifyMarkConnectorStruct } from './fsnotify-backend.ts';
import { listForEachEntry } from './list.ts';

/** `struct inotify_inode_mark` (fs/notify/inotify/inotify.h), which starts with the mark. */
export const inotifyMark = struct('inotify_inode_mark', {
  wd: s32,
  mask: u32.at('fsn_mark.mask'),
  flags: u32.at('fsn_mark.flags'),
  connector: pointer.at('fsn_mark.connector'),
  g_list: addressOf('fsn_mark.g_list'),
});

/** Bits of `fsnotify_mark.flags` (FSNOTIFY_MARK_FLAG_*). */
export const MARK = { exclUnlink: 0x10, oneshot: 0x20 } as const;
/** IN_ALL_EVENTS, and what the flags of a mark are in inotify_add_watch(2). */
const IN_ALL_EVENTS = 0xfff;
export const IN_EXCL_UNLINK = 0x0400_0000;
export const IN_ONESHOT = 0x8000_0000;

const MAX_MARKS = 1 << 20;

export interface InotifyMark {
  readonly wd: number;
  /** As given to inotify_add_watch, IN_EXCL_UNLINK and IN_ONESHOT included. */
  readonly mask: number;
  /** Address of the watched inode; 0n if it has gone. */
  readonly inode: bigint;
}

export interface InotifyState {
  readonly queued: number;
  readonly marks: readonly InotifyMark[];
}

/** The state of an inotify file. Throws a ContainerError if the list of marks is damaged. */
export function inotifyState(kernel: Kernel, group: bigint): InotifyState {
  const { q_len: queued, marks_list } = kernel.bind(fsnotifyGroupStruct).at(group);
  const Connector = kernel.bind(fsnotifyMarkConnectorStruct);
  const pointsToInode = kernel.hasMember('fsnotify_mark_connector', 'prio');
  const marks: InotifyMark[] = [];
  for (const mark of listForEachEntry(kernel, marks_list, kernel.bind(inotifyMark), 'g_list', MAX_MARKS)) {
    const object = mark.connector === 0n ? 0n : Connector.at(mark.connector).obj;
    const inode =
      pointsToInode || object === 0n
        ? object
        : kernel.bind(inodeStruct).containerOf(object, 'i_fsnotify_marks').address;
    const extra =
      ((mark.flags & MARK.exclUnlink) === 0 ? 0 : IN_EXCL_UNLINK) +
      ((mark.flags & MARK.oneshot) === 0 ? 0 : IN_ONESHOT);
    marks.push({ wd: mark.wd, mask: (mark.mask & IN_ALL_EVENTS) + extra, inode });
  }
  return { queued, marks: marks.toSorted((a, b) => a.wd - b.wd) };
}
