import { fdSlot } from '../../linux/fdtable.ts';
import { fileAt } from '../../linux/file.ts';
import { inodeStruct } from '../../linux/fs.ts';
import { type StackPart, takenOfPages } from '../../linux/iov-iter.ts';
import { pipeBuffers, pipeInodeInfo } from '../../linux/pipe.ts';
import { fileKind } from '../../linux/readers/file-kind.ts';
import { type KernelStack, kernelStack, type StackFrame } from '../../linux/readers/kernel-stack.ts';
import type { Task } from '../../linux/sched.ts';
import { spliceDesc } from '../../linux/splice.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
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
export interface SendfileArguments {
  /** The open file of the socket. */
  readonly out: bigint;
  /** Where in the file it begins: what is there in the program's memory now. */
  readonly start: bigint;
  /** Bytes that it is to send. */
  readonly count: bigint;
}

/** MAX_RW_COUNT (include/linux/fs.h): bytes that one call moves at most. */
const MOST_BYTES = 0x7fff_f000n;

/**
 * The round that `splice_direct_to_actor` is in, which its caller keeps count of. The caller of that one has
 * where the call began beside where it goes to (do_sendfile, fs/read_write.c), up to its end: the program may
 * have changed its own since.
 */
function roundOf(
  kernel: Kernel,
  frames: readonly StackFrame[],
  at: number,
  { out, start, count }: SendfileArguments,
): Round | undefined {
  const { low, high } = variablesOf(frames, at + 1) ?? { low: 0n, high: 0n };
  const outer = variablesOf(frames, at + 2);
  if (outer === undefined) return undefined;
  const length = count < MOST_BYTES ? count : MOST_BYTES;
  const Desc = kernel.bind(spliceDesc);
  const found: Round[] = [];
  for (let address = low; address + BigInt(Desc.size) <= high; address += 8n) {
    const { out: to, len, pos, opos, total_len: bytes } = Desc.at(address);
    if (to !== out || BigInt(len) !== length || bytes > length) continue;
    if (opos < outer.low + 8n || opos + 16n > outer.high) continue;
    const beside = kernel.memory.read(opos - 8n, 24);
    if (beside.readBigUInt64LE(0) !== start && beside.readBigUInt64LE(16) !== start) continue;
    if (pos >= start && pos <= start + length)
      found.push({ earlier: Number(pos - start), bytes: Number(bytes) });
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

/** What a call has sent. */
export interface SentFile {
  readonly bytes: number;
  /** Where in the file it began. */
  readonly start: bigint;
}

/** Only what is read of these moves their place: a device gives as much as is wanted, from nowhere. */
function isRegular(kernel: Kernel, table: bigint, fd: bigint): boolean {
  const file = fileAt(kernel, fdSlot(kernel, table, Number(BigInt.asIntN(32, fd)))?.file ?? 0n);
  return file !== undefined && typeOf(kernel.bind(inodeStruct).at(file.f_inode).i_mode) === fileType.regular;
}

/**
 * What sendfile(2) has given to a socket. All else that it changes, it changes at its end: the offset that it
 * was given, or the file's own. What a round has sent is counted by its caller, by what is still in the pipe,
 * and, while TCP has the pages, by an iov_iter, of which the same is true as of one of a program's memory
 * (tcp-place.ts).
 *
 * @param given the call's arguments
 * @returns undefined where that cannot be found out: it reads no regular file, it works on the file's own
 * position, it is somewhere else, or the kernel sends page by page (before Linux 6.5)
 */
export function sentOfFile(
  kernel: Kernel,
  given: readonly bigint[],
  { task, user, cpu, panicked }: Transferring,
): SentFile | undefined {
  const [to = -1n, from = -1n, offset = 0n, count = 0n] = given;
  const beginning = offset === 0n ? undefined : user.read(offset, 8);
  if (panicked || beginning?.kind !== 'bytes') return undefined;
  const start = beginning.bytes.readBigUInt64LE();
  return readable(() => {
    const out = fileAt(kernel, fdSlot(kernel, task.files, Number(BigInt.asIntN(32, to)))?.file ?? 0n);
    if (out === undefined || fileKind(kernel, out.f_op) !== 'socket') return undefined;
    if (!isRegular(kernel, task.files, from)) return undefined;
    const call = { out: out.address, start, count };
    const bytes = sentOnStack(kernel, task, kernelStack(kernel, task, cpu), call);
    return bytes === undefined ? undefined : { bytes, start };
  });
}

/** Whether a call has its socket send, and does not read what it sends, maybe by another one. */
export function isSendingFile({ frames }: Pick<KernelStack, 'frames'>): boolean {
  return frames.some((frame) => frame.function === 'splice_to_socket');
}

/** The bytes, of a call of which all is known but how far it has come. @throws VmcoreError */
export function sentOnStack(
  kernel: Kernel,
  task: Pick<Task, 'splice_pipe'>,
  stack: KernelStack,
  given: SendfileArguments,
): number | undefined {
  const { frames, end } = stack;
  const at = frames.findLastIndex((frame) => frame.function === 'splice_direct_to_actor');
  const round = end === 'user' && at > 0 ? roundOf(kernel, frames, at, given) : undefined;
  if (round === undefined) return undefined;
  const [called, sender] = [frames[at - 1], frames[at - 2]];
  if (READS.test(called?.function ?? '')) return round.earlier;
  if (called?.function !== 'direct_splice_actor' || sender?.function !== 'splice_to_socket') return undefined;
  const variables = variablesOf(frames, at - 2);
  if (tcpPlace(stack) !== 'at-rest' || variables === undefined) return undefined;
  const sent = sentOfRound(kernel, task, variables, round);
  return sent === undefined ? undefined : round.earlier + sent;
}
