import { inodePaths } from '../../linux/dcache.ts';
import { EFD_SEMAPHORE, eventfdContext } from '../../linux/eventfd.ts';
import { type File, inodeStruct, superBlockStruct, userDevice } from '../../linux/fs.ts';
import { inotifyState } from '../../linux/inotify.ts';
import { coarseness } from '../../linux/readers/clocks.ts';
import { signalfdContext } from '../../linux/signalfd.ts';
import { CLOCK } from '../../linux/timekeeping.ts';
import {
  isAlarmClock,
  readTimerfd,
  type TimerFdContext,
  timerfdFlags,
  timerfdState,
  waitsForRead,
} from '../../linux/timerfd.ts';
import type { EventFd, Inotify, InotifyWatch, SignalFd, TimerFd, WallClockTimer } from '../../model/file.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';

/** An eventfd. Throws a FileRefusal for one in semaphore mode, which CRIU up to 4.1 makes again without. */
export function captureEventfd(context: CaptureContext, file: File): EventFd {
  const { count, flags } = context.kernel.bind(eventfdContext).at(file.private_data);
  if ((flags & EFD_SEMAPHORE) !== 0) throw new FileRefusal('has an eventfd in semaphore mode');
  return { type: 'eventfd', ...context.common(file), count };
}

/** Numbers of the signals are one more than their bits. */
const ALL_SIGNALS = 0xffff_ffff_ffff_ffffn;

export function captureSignalfd(context: CaptureContext, file: File): SignalFd {
  const { sigmask } = context.kernel.bind(signalfdContext).at(file.private_data);
  return { type: 'signalfd', ...context.common(file), mask: ~sigmask & ALL_SIGNALS };
}

/** How an absolute timer on the wall clock is set once more: with the time of day that it was set to. */
export function wallClockTimer(timer: TimerFdContext): WallClockTimer | undefined {
  if (timer.clock !== CLOCK.realtime || (timer.settimeFlags & timerfdFlags.absolute) === 0) return undefined;
  const waits = waitsForRead(timer);
  return {
    flags: timer.settimeFlags,
    expiresNanoseconds: timer.isQueued || waits ? timer.expires : 0n,
    ticks: timer.ticks,
    waitsForRead: waits,
  };
}

/**
 * A timerfd. An absolute timer is the same as a relative one with the time that remains: CRIU adds the time
 * of its clock to the time of an absolute one, so that one with nothing left goes off. What that loses on the
 * wall clock, which does not stand still while the system is away, is set afterwards. Throws a FileRefusal
 * for clocks that CRIU does not know.
 */
export function captureTimerfd(context: CaptureContext, file: File): TimerFd {
  const timer = readTimerfd(context.kernel, file.private_data, context.clocks);
  if (isAlarmClock(timer.clock))
    throw new FileRefusal('has a timerfd that wakes the machine (CLOCK_*_ALARM)');
  const state = timerfdState(timer);
  const wallClock = wallClockTimer(timer);
  const coarse = coarseness(context.clocks);
  if (wallClock === undefined && coarse !== undefined && state.remainingNanoseconds > 0n)
    throw new FileRefusal(`has a timerfd that is set, and ${coarse}`);
  if (wallClock !== undefined && (wallClock.flags & timerfdFlags.cancelOnSet) !== 0) {
    const holders = context.system.holdersOfFile(file.address);
    context.noteHolders(
      holders,
      'its timers on the wall clock are cancelled, as they ask for when it is set',
    );
  }
  const settimeFlags = state.settimeFlags & ~timerfdFlags.absolute;
  return {
    ...{ type: 'timerfd', ...context.common(file), ...state, settimeFlags },
    ...(wallClock === undefined ? {} : { wallClock }),
  };
}

/** An inotify file with its watches by path. Throws a FileRefusal if a watched inode has no known path. */
export function captureInotify(context: CaptureContext, file: File): Inotify {
  const { kernel } = context;
  const holders = context.system.holdersOfFile(file.address);
  const namespace = context.namespaceOfHolders(holders);
  const { queued, marks } = inotifyState(kernel, file.private_data);
  const watches = marks.map(({ wd, mask, inode: address }): InotifyWatch => {
    const path = address === 0n ? undefined : inodePaths(kernel, address, namespace)[0]?.path;
    if (path === undefined)
      throw new FileRefusal(`has an inotify watch (${wd}) on a file whose path is not known`);
    const inode = kernel.bind(inodeStruct).at(address);
    const device = userDevice(kernel.bind(superBlockStruct).at(inode.i_sb).s_dev);
    return { wd, mask, path, inode: inode.i_ino, device };
  });
  if (queued > 0) context.noteHolders(holders, `${queued} inotify events that had not been read are lost`);
  return { type: 'inotify', ...context.common(file), watches };
}
