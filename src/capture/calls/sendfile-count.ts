import { fdSlot } from '../../linux/fdtable.ts';
import { fileAt } from '../../linux/file.ts';
import { type StackPart, takenOfPages } from '../../linux/iov-iter.ts';
import { pipeBuffers, pipeInodeInfo } from '../../linux/pipe.ts';
import { fileKind } from '../../linux/readers/file-kind.ts';
import { type KernelStack, kernelStack, type StackFrame } from '../../linux/readers/kernel-stack.ts';
import type { Task } from '../../linux/sched.ts';
import { spliceDesc } from '../../linux/splice.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { tcpPlace } from './tcp-place.ts';
import type { Transferring } from './transferring.ts';

/** A round of sendfile(2): it reads some pages of the file into a pipe of its own, and sends these. */
interface Round {
  /** Bytes that earlier ones have sent. */
  readonly earlier: number;
  /** Bytes that it has read. */
  readonly bytes: number;
}

/** Pages that are given to a socket at once (splice_to_socket, fs/splice.c). */
const MOST_AT_ONCE = 16;

/** A function's part of the stack, which its variables are in. */
function variablesOf(frames: readonly StackFrame[], at: number): StackPart | undefined {
  const [frame, caller] = [frames[at], frames[at + 1]];
  return frame === undefined || caller === undefined ? undefined : { low: frame.sp, high: caller.sp };
}

/** What a call was given. */
export interface Given {
  /** The open file of the socket. */
  readonly out: bigint;
  /** Where in the file it begins. */
  readonly start: bigint;
  /** Bytes that it is to send. */
  readonly count: bigint;
}

/** The round that `splice_direct_to_actor` is in, which its caller keeps count of. */
function roundOf(
  kernel: Kernel,
  frames: readonly StackFrame[],
  at: number,
  { out, start, count }: Given,
): Round | undefined {
  const { low, high } = variablesOf(frames, at + 1) ?? { low: 0n, high: 0n };
  const Desc = kernel.bind(spliceDesc);
  const found: Round[] = [];
  for (let address = low; address + BigInt(Desc.size) <= high; address += 8n) {
    const desc = Desc.at(address);
    const { len, pos } = desc;
    const bytes = Number(desc.total_len);
    const isCall = desc.out === out && BigInt(len) <= count && bytes <= len;
    const earlier = pos - start;
    if (isCall && earlier >= 0n && earlier <= BigInt(len)) found.push({ earlier: Number(earlier), bytes });
  }
  const [round, another] = found;
  return another === undefined ? round : undefined;
}

/** @param variables those of splice_to_socket */
function sentOfRound(
  kernel: Kernel,
  task: Pick<Task, 'splice_pipe'>,
  variables: StackPart,
  round: Round,
): number | undefined {
  const pipe = kernel.bind(pipeInodeInfo).at(task.splice_pipe);
  const left = pipeBuffers(kernel, pipe).map(({ page, offset, len }) => ({ page, offset, length: len }));
  // What was sent is taken out when the socket's call has returned.
  const before = round.bytes - left.reduce((sum, { length }) => sum + length, 0);
  const taken = before < 0 ? undefined : takenOfPages(kernel, variables, left.slice(0, MOST_AT_ONCE));
  return taken === undefined ? undefined : before + taken;
}

/** Where a file is read for it: `ext4:ext4_file_splice_read`, `filemap_splice_read`, `vfs_splice_read` ... */
const READS = /(^|[:_])splice_read$/;
/** What splice_to_socket calls before it sends anything. */
const beforeSending: ReadonlySet<string | undefined> = new Set(['pipe_lock', 'mutex_lock']);

/**
 * Bytes that sendfile(2) has given to a TCP socket. All else that it changes, it changes at its end: the
 * offset that it was given, or the file's own. What a round has sent is counted by its caller, by what is
 * still in the pipe, and, while TCP has the pages, by an iov_iter, of which the same is true as of one of a
 * program's memory (tcp-place.ts).
 *
 * @param given the call's arguments
 * @returns undefined where that cannot be found out: it works on the file's own position, it is somewhere
 * else, or the kernel sends page by page (before 6.5)
 */
export function sentOfFile(
  kernel: Kernel,
  given: readonly bigint[],
  { task, user, cpu, panicked }: Transferring,
): number | undefined {
  const [fd = -1n, , offset = 0n, count = 0n] = given;
  const beginning = offset === 0n ? undefined : user.read(offset, 8);
  if (panicked || beginning?.kind !== 'bytes') return undefined;
  const start = beginning.bytes.readBigUInt64LE();
  return readable(() => {
    const out = fileAt(kernel, fdSlot(kernel, task.files, Number(BigInt.asIntN(32, fd)))?.file ?? 0n);
    if (out === undefined || fileKind(kernel, out.f_op) !== 'socket') return undefined;
    return sentOnStack(kernel, task, kernelStack(kernel, task, cpu), { out: out.address, start, count });
  });
}

/** The same, of a call of which all is known but how far it has come. @throws VmcoreError */
export function sentOnStack(
  kernel: Kernel,
  task: Pick<Task, 'splice_pipe'>,
  stack: KernelStack,
  given: Given,
): number | undefined {
  const { frames, end } = stack;
  const at = frames.findLastIndex((frame) => frame.function === 'splice_direct_to_actor');
  const round = end === 'user' && at > 0 ? roundOf(kernel, frames, at, given) : undefined;
  if (round === undefined) return undefined;
  const [called, sender] = [frames[at - 1], frames[at - 2]];
  if (READS.test(called?.function ?? '')) return round.earlier;
  if (called?.function !== 'direct_splice_actor' || sender?.function !== 'splice_to_socket') return undefined;
  if (beforeSending.has(sender.calls)) return round.earlier;
  const variables = variablesOf(frames, at - 2);
  if (tcpPlace(stack) !== 'at-rest' || variables === undefined) return undefined;
  const sent = sentOfRound(kernel, task, variables, round);
  return sent === undefined ? undefined : round.earlier + sent;
}
