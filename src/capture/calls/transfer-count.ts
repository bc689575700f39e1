import { transferProgress } from '../../linux/iov-iter.ts';
import { kernelStack } from '../../linux/readers/kernel-stack.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { buffersOf } from './call-buffers.ts';
import { sentOfFile } from './sendfile-count.ts';
import { copiesIter, movedBytes } from './socket-call.ts';
import { syscallRow } from './syscall-table.ts';
import { tcpCallersFrom } from './tcp-place.ts';
import type { Transferring } from './transferring.ts';

/** A call with its arguments. */
export interface Call {
  readonly name: string;
  readonly given: readonly bigint[];
}

const reads: ReadonlySet<string> = new Set(['read', 'readv', 'recvfrom', 'recvmsg']);

/** Whether a call reads or writes one stream, and may have moved a part of what it was to move. */
export function movesStream(name: string): boolean {
  return syscallRow(name).class === 'transfer' || name === 'sendfile';
}

/** Which way a call moves bytes that {@link movesStream}. */
export function directionOf(name: string): 'read' | 'write' {
  return reads.has(name) ? 'read' : 'write';
}

/**
 * From where on the kernel stack of a thread what its call counts is in memory. A CPU has some of it in its
 * registers; not so in TCP's code at the places at which a connection comes back (tcp-place.ts). At others it
 * does not come back, or is reset: what is counted then is no more than what was moved, and nothing follows
 * it.
 */
function countsFrom(kernel: Kernel, { task, cpu, panicked }: Transferring): bigint | undefined {
  if (cpu === undefined) return task.thread.sp;
  if (panicked) return undefined;
  return tcpCallersFrom(kernelStack(kernel, task, cpu));
}

/**
 * Bytes that a call of the transfer class, or sendfile(2) to a socket, has moved already.
 *
 * @param isSocket its first argument is a socket
 * @returns undefined where that cannot be found out
 */
export function doneBytes(
  kernel: Kernel,
  { name, given }: Call,
  thread: Transferring,
  isSocket: boolean,
): number | undefined {
  if (name === 'sendfile') return sentOfFile(kernel, given, thread)?.bytes;
  const low = countsFrom(kernel, thread);
  if (low === undefined) return undefined;
  const buffers = buffersOf(name, given, thread.user) ?? [];
  const isCopied = isSocket && copiesIter(name);
  const counted = transferProgress(kernel, thread.task, directionOf(name), buffers, { low, isCopied });
  return movedBytes(name, given, counted);
}
