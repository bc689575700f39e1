import { panicCpu } from '../../../../linux/current.ts';
import { fdSlot, fdSlots } from '../../../../linux/fdtable.ts';
import { fileAt } from '../../../../linux/file.ts';
import { mmStruct } from '../../../../linux/mm-types.ts';
import { type Socket, socketConnected, socketStruct } from '../../../../linux/net.ts';
import { findTaskByPid, forEachThread } from '../../../../linux/pid.ts';
import { fileKind } from '../../../../linux/readers/file-kind.ts';
import { kernelStack } from '../../../../linux/readers/kernel-stack.ts';
import { runningTasks } from '../../../../linux/readers/running-tasks.ts';
import { UserMemory } from '../../../../linux/readers/user-memory.ts';
import { type Task, taskAt, taskState } from '../../../../linux/sched.ts';
import { isAtWork, type Sock, tcpState } from '../../../../linux/sock.ts';
import { ContainerError } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { registersAtEntry } from '../../../arch/index.ts';
import { isSendingFile } from '../../../calls/sendfile-count.ts';
import { ENOSYS } from '../../../calls/syscall.ts';
import { hasSocketLock, type TcpPlace, tcpPlace } from '../../../calls/tcp-place.ts';
import { type Call, directionOf, doneBytes, movesStream } from '../../../calls/transfer-count.ts';
import type { CaptureContext } from '../../context.ts';
import { FileRefusal } from '../../refusal.ts';
import { type TcpEnd, watchOf } from './tcp-moving.ts';
import { Disagreement } from './tcp-queue.ts';

/** Where threads were executing. */
class Executing {
  readonly cpuOf: ReadonlyMap<bigint, number>;
  readonly panicked: number | undefined;

  constructor({ kernel }: CaptureContext) {
    this.cpuOf = runningTasks(kernel).cpuOf;
    this.panicked = panicCpu(kernel);
  }
}

/** The call that a thread has not finished. */
function callOf({ architecture }: Kernel, registers: ReturnType<typeof registersAtEntry>): Call | undefined {
  const { systemCalls } = architecture;
  const number = systemCalls.current(registers);
  if (number === -1 || systemCalls.result(registers) !== ENOSYS) return undefined;
  return { name: systemCalls.name(number), given: systemCalls.arguments(registers) };
}

/** A thread with an unfinished call on a socket: it may have the lock. */
export interface Worker {
  /** Of the call. */
  readonly name: string;
  /** It reads or writes one stream: it is of the transfer class, or sendfile. */
  readonly isTransfer: boolean;
  readonly place: TcpPlace;
  /** Its stack shows that it has the lock. */
  readonly hasLock: boolean;
  /** Bytes that its call has counted. */
  readonly done: number | undefined;
  /** It waits for something that no signal ends: memory, or the lock. */
  readonly isBlocked: boolean;
}

/** The descriptors that a call was given: the first argument; `splice` has another one as its third. */
function descriptorsIn({ name, given }: Call): number[] {
  const [first = -1n, , third = -1n] = given;
  return (name === 'splice' ? [first, third] : [first]).map((fd) => Number(BigInt.asIntN(32, fd)));
}

/** @param numbers descriptors of the socket */
function workerOf(context: CaptureContext, task: Task, numbers: ReadonlySet<number>): Worker | undefined {
  const { kernel } = context;
  const call = callOf(kernel, registersAtEntry(kernel, task));
  if (call === undefined) return undefined;
  if (!descriptorsIn(call).some((fd) => numbers.has(fd))) return strangerOf(context, task, call);
  const { cpuOf, panicked } = context.of(Executing);
  const cpu = cpuOf.get(task.address);
  const hasPanicked = cpu !== undefined && cpu === panicked;
  const stack = kernelStack(kernel, task, cpu);
  const { name } = call;
  // A file may be read by a connection, too.
  const isAtSocket = name !== 'sendfile' || isSendingFile(stack);
  const place = isAtSocket ? tcpPlace(stack) : 'outside';
  const isTransfer = movesStream(name);
  if (!isTransfer || place === 'unknown' || hasPanicked) return unknownWorker(name, isTransfer);
  const user = new UserMemory(kernel, kernel.bind(mmStruct).at(task.mm));
  const done = doneBytes(kernel, call, { task, user, cpu, panicked: false }, true);
  const isBlocked = (task.__state & taskState.uninterruptible) !== 0;
  return { name, isTransfer, place, hasLock: isAtSocket && hasSocketLock(stack), done, isBlocked };
}

function unknownWorker(name: string, isTransfer: boolean): Worker {
  return { name, isTransfer, place: 'unknown', hasLock: false, done: undefined, isBlocked: false };
}

/**
 * A thread that moves bytes through TCP, and whose descriptor leads to no socket any more: another thread has
 * closed or replaced it. Which socket it has is not known, so it may be any.
 */
function strangerOf(context: CaptureContext, task: Task, call: Call): Worker | undefined {
  const { kernel } = context;
  const place = tcpPlace(kernelStack(kernel, task, context.of(Executing).cpuOf.get(task.address)));
  if (place === 'outside' || place === 'unknown') return undefined;
  const isSocket = descriptorsIn(call).some((fd) => {
    const file = fileAt(kernel, fdSlot(kernel, task.files, fd)?.file ?? 0n);
    return file !== undefined && fileKind(kernel, file.f_op) === 'socket';
  });
  return isSocket ? undefined : unknownWorker(call.name, true);
}

/** The threads of all processes that hold a socket whose unfinished calls are on it. */
function workersOf(context: CaptureContext, sock: Sock): Worker[] {
  const { kernel, system } = context;
  const holders = system.holdersOfObject(sock.address);
  const files = new Set(holders.map(({ file }) => file));
  const known = new Map<bigint, ReadonlySet<number>>();
  const numbersIn = (table: bigint): ReadonlySet<number> => {
    const found =
      known.get(table) ??
      new Set(fdSlots(kernel, table).flatMap(({ fd, file }) => (files.has(file) ? [fd] : [])));
    known.set(table, found);
    return found;
  };
  return [...new Set(holders.map(({ pid }) => pid))].flatMap((pid) => {
    const leader = findTaskByPid(kernel, pid);
    const threads = leader === undefined ? [] : [...forEachThread(kernel, leader)];
    return threads.flatMap((address) => {
      const task = taskAt(kernel, address);
      return task.files === 0n ? [] : (workerOf(context, task, numbersIn(task.files)) ?? []);
    });
  });
}

/**
 * Whether what the socket has done for the call is known, and the call is told just that (transferDecision):
 * a count that it is not told would be lost of what it reads, or sent once more.
 */
function isCounted({ name, place, done, isBlocked }: Worker): boolean {
  if (place === 'unknown' || done === undefined) return false;
  if (done === 0) return true;
  // sendfile is told what it has sent, whatever it waits for.
  if (name === 'sendfile') return true;
  return place !== 'between' && !(isBlocked && directionOf(name) === 'write');
}

/**
 * Decides whether a connection that somebody was at when the kernel died can be read as it is. What it counts
 * and what it has are compared to the byte by who reads it, and nearly all half-made changes show there. So
 * two things are left. What a call has moved must be what the socket has given or taken for it, and the call
 * that has the lock must be known; and the connection must be known to its process, open both ways and
 * without an error, because its beginning and its end change more than the queues. What waits for the lock of
 * the socket (its backlog) was not acknowledged: the peer sends it again.
 *
 * @param workers the threads with unfinished calls on it
 * @returns why it cannot be read
 */
export function workProblem(
  { state, sk_err, owned }: Pick<Sock, 'state' | 'sk_err' | 'owned'>,
  socket: Pick<Socket, 'state'>,
  workers: readonly Worker[],
): string | undefined {
  if (state !== tcpState.established || sk_err !== 0) return 'it was ending';
  if (socket.state !== socketConnected.connected)
    return 'its process may not have been told that it was there';
  const between = workers.find((worker) => !isCounted(worker));
  if (between !== undefined)
    return between.isTransfer
      ? `how much of a ${between.name} is done cannot be told`
      : `a ${between.name} on it was not finished`;
  const isOwnerKnown = owned === 0 || workers.filter(({ hasLock }) => hasLock).length === 1;
  return isOwnerKnown ? undefined : 'which call had its lock cannot be told';
}

/**
 * Throws a FileRefusal if somebody was at a connection and that cannot be decided ({@link workProblem}). It
 * can be lost instead: whoever calls has made sure that it is not damaged.
 */
export function checkWork(context: CaptureContext, sock: Sock): void {
  if (!isAtWork(sock)) return;
  const socket = context.kernel.bind(socketStruct).at(sock.sk_socket);
  const problem = workProblem(sock, socket, workersOf(context, sock));
  if (problem !== undefined) throw refusalOf(problem, 'can-be-lost');
}

/** What becomes of a connection that cannot be kept: it costs its process, or may be lost instead. */
type Otherwise = 'refused' | 'can-be-lost';

const WORKED_ON = 'that was being worked on when the kernel died';

function refusalOf(problem: string, otherwise: Otherwise): FileRefusal {
  const loss = { kind: 'connections', why: `${WORKED_ON} (${problem})` } as const;
  return new FileRefusal(
    `has a TCP connection ${WORKED_ON}: ${problem}`,
    'passing',
    otherwise === 'refused' ? undefined : loss,
  );
}

/** What does not fit; undefined if that is not what an error is about. */
function problemOf(error: unknown): string | undefined {
  if (error instanceof Disagreement) return error.problem;
  return error instanceof ContainerError ? error.message : undefined;
}

/**
 * Reads something of a connection. While somebody is at it, what does not fit is no damage, but a change that
 * was half made: a refusal of the moment. So it is if the kernel lives and the connection has moved since it
 * was read; then nothing is lost for it, as after a panic it is whole, or damaged.
 * @param ends as they were read
 */
export function readAtWork<T>(
  kernel: Kernel,
  ends: readonly TcpEnd[],
  otherwise: Otherwise,
  read: () => T,
): T {
  const isWorkedOn = ends.some(({ sock }) => isAtWork(sock));
  const watch = kernel.isAlive ? watchOf(kernel, ends) : undefined;
  try {
    return read();
  } catch (error) {
    const problem = problemOf(error);
    if (problem === undefined) throw error;
    if (isWorkedOn) throw refusalOf(problem, otherwise);
    if (watch?.hasMoved() !== true) throw error;
    throw new FileRefusal(`has a TCP connection that moved while it was looked at: ${problem}`, 'passing');
  }
}
