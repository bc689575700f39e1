import { pointer, s32, s64, struct, ulongNumber } from '../vmcore/view.ts';

/**
 * `struct restart_block` (include/linux/restart_block.h), of a task: what a call that was interrupted by a
 * stop or a signal had still to wait for. The function tells which of the members have a meaning.
 */
export const restartBlockStruct = struct('restart_block', {
  fn: pointer,
  sleepClock: s32.at('nanosleep.clockid'),
  sleepExpires: s64.at('nanosleep.expires'),
  futexTime: s64.at('futex.time'),
  pollHasTimeout: s32.at('poll.has_timeout'),
  pollSeconds: ulongNumber.at('poll.tv_sec'),
  pollNanoseconds: ulongNumber.at('poll.tv_nsec'),
});
