import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Task } from '../sched.ts';
import { semQueue } from '../sem.ts';
import type { StackFrame } from './kernel-stack.ts';

/** `status` of an operation that nobody has done yet (ipc/sem.c). */
const WAITS = -4;
/** Where semop(2) sleeps, with its `struct sem_queue` among its variables. */
const sleeps: ReadonlySet<string> = new Set(['schedule_hrtimeout_range', 'schedule_hrtimeout_range_clock']);
const FRAME_BYTES = 1024;

/** Bytes of the frame that has called the sleep, by where it begins; undefined if none has. */
function frameOf(kernel: Kernel, frames: readonly StackFrame[]): { at: bigint; bytes: Buffer } | undefined {
  const index = frames.findIndex(({ calls }) => calls !== undefined && sleeps.has(calls));
  const [frame, caller] = [frames[index], frames[index + 1]];
  if (frame === undefined || caller === undefined) return undefined;
  const length = Number(caller.sp - frame.sp);
  if (length <= 0 || length > FRAME_BYTES) return undefined;
  const bytes = readable(() => kernel.memory.read(frame.sp, length));
  return bytes === undefined ? undefined : { at: frame.sp, bytes };
}

/**
 * The result of an operation on semaphores that another process has done for a thread, which has not run
 * since: 0, or an errno with its sign changed; undefined if that is not certain.
 *
 * @param frames of the kernel stack of the thread, which is in semop(2) or semtimedop(2)
 */
export function doneOperation(
  kernel: Kernel,
  task: Pick<Task, 'address'>,
  frames: readonly StackFrame[],
): number | undefined {
  const frame = frameOf(kernel, frames);
  if (frame === undefined) return undefined;
  const Queue = kernel.bind(semQueue);
  const sleeper = Queue.offsetOf('sleeper');
  const found: number[] = [];
  for (let at = 0; at + Queue.size <= frame.bytes.length; at += 8) {
    if (frame.bytes.readBigUInt64LE(at + sleeper) !== task.address) continue;
    found.push(Queue.at(frame.at + BigInt(at)).status);
  }
  const [status, ...others] = found;
  return others.length > 0 || status === WAITS ? undefined : status;
}
