import { inodePaths } from '../../linux/dcache.ts';
import { EFD_SEMAPHORE, eventfdContext } from '../../linux/eventfd.ts';
import type { File } from '../../linux/file.ts';
import { inodeStruct, superBlockStruct, userDevice } from '../../linux/fs.ts';
import { inotifyState } from '../../linux/inotify.ts';
import { signalfdContext } from '../../linux/signalfd.ts';
import { CLOCK, coarseness } from '../../linux/timekeeping.ts';
import { timerfdFlags, timerfdState } from '../../linux/timerfd.ts';
import type { EventFd, Inotify, InotifyWatch, SignalFd, TimerFd } from '../../model/file.ts';
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

/**
 * A timerfd. An absolute timer on a clock that goes on across the panic is the same as a relative one with the time that
 * remains; an absolute timer on the wall clock keeps its flags.
 */
export function captureTimerfd(context: CaptureContext, file: File): TimerFd {
  const state = timerfdState(context.kernel, file.private_data, context.clocks);
  const coarse = coarseness(context.clocks);
  if (coarse !== undefined && state.remainingNanoseconds > 0n)
    throw new FileRefusal(`has a timerfd that is set, and ${coarse}`);
  const onWallClock = state.clock === CLOCK.realtime || state.clock === CLOCK.realtimeAlarm;
  const isAbsolute = (state.settimeFlags & timerfdFlags.absolute) !== 0;
  if (onWallClock && isAbsolute && state.remainingNanoseconds > 0n) {
    const holders = context.system.holdersOfFile(file.address);
    context.noteHolders(
      holders,
      'a timer set to a time of day goes off later by as long as the system was away',
    );
  }
  const settimeFlags = onWallClock ? state.settimeFlags : state.settimeFlags & ~timerfdFlags.absolute;
  return { type: 'timerfd', ...context.common(file), ...state, settimeFlags };
}

/** An inotify file with its watches by path. Throws a FileRefusal if a watched inode has no known path. */
export function captureInotify(context: CaptureContext, file: File): Inotify {
  const { kernel } = context;
  const { queued, marks } = inotifyState(kernel, file.private_data);
  const watches = marks.map(({ wd, mask, inode: address }): InotifyWatch => {
    const path = address === 0n ? undefined : inodePaths(kernel, address)[0]?.path;
    if (path === undefined)
      throw new FileRefusal(`has an inotify watch (${wd}) on a file whose path is not known`);
    const inode = kernel.bind(inodeStruct).at(address);
    const device = userDevice(kernel.bind(superBlockStruct).at(inode.i_sb).s_dev);
    return { wd, mask, path, inode: inode.i_ino, device };
  });
  if (queued > 0) {
    const holders = context.system.holdersOfFile(file.address);
    context.noteHolders(holders, `${queued} inotify events that had not been read are lost`);
  }
  return { type: 'inotify', ...context.common(file), watches };
}
