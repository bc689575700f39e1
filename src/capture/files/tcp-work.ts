import { panicCpu, runningTasks } from '../../linux/current.ts';
import { fdSlots } from '../../linux/fdtable.ts';
import { mmStruct } from '../../linux/mm-types.ts';
import { type Socket, socketConnected, socketStruct } from '../../linux/net.ts';
import { findTaskByPid, forEachThread } from '../../linux/pid.ts';
import { kernelStack } from '../../linux/readers/kernel-stack.ts';
import { UserMemory } from '../../linux/readers/user-memory.ts';
import { type Task, taskAt } from '../../linux/sched.ts';
import { type Sock, tcpState } from '../../linux/sock.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { registersAtEntry } from '../arch/index.ts';
import { ENOSYS } from '../syscall.ts';
import { syscallRow } from '../syscall-table.ts';
import { type TcpPlace, tcpPlace } from '../tcp-place.ts';
import { type Call, doneBytes } from '../transfer-count.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';

/** Where threads were executing. */
class Executing {
  readonly cpuOf: ReadonlyMap<bigint, number>;
  readonly panicked: number | undefined;

  constructor({ kernel }: CaptureContext) {
    this.cpuOf = runningTasks(kernel).cpuOf;
    this.panicked = panicCpu(kernel);
  }
}

/** Whether a system call or a CPU had a socket when the kernel died. */
export function isAtWork({ owned, spinLock, backlogTail }: Sock): boolean {
  return owned !== 0 || spinLock !== 0 || backlogTail !== 0n;
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
  readonly place: TcpPlace;
  /** Bytes that its call has counted. */
  readonly done: number | undefined;
}

/** @param numbers descriptors of the socket */
function workerOf(context: CaptureContext, task: Task, numbers: ReadonlySet<number>): Worker | undefined {
  const { kernel } = context;
  const call = callOf(kernel, registersAtEntry(kernel, task));
  if (call === undefined || !numbers.has(Number(BigInt.asIntN(32, call.given[0] ?? -1n)))) return undefined;
  const { cpuOf, panicked } = context.of(Executing);
  const cpu = cpuOf.get(task.address);
  const hasPanicked = cpu !== undefined && cpu === panicked;
  const place = tcpPlace(kernelStack(kernel, task, cpu));
  if (syscallRow(call.name).class !== 'transfer' || place === 'unknown' || hasPanicked)
    return { name: call.name, place: 'unknown', done: undefined };
  const user = new UserMemory(kernel, kernel.bind(mmStruct).at(task.mm));
  const done = doneBytes(kernel, call, { task, user, cpu, panicked: false }, true);
  return { name: call.name, place, done };
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

/** What the socket has done for the call is known: all that the call has counted, or nothing. */
function isCounted({ place, done }: Worker): boolean {
  return place === 'at-rest' || place === 'outside' || (place === 'between' && done === 0);
}

/**
 * Decides whether a connection that somebody was at when the kernel died can be read as it is. What it counts
 * and what it has are compared to the byte by who reads it: a half-made change of its queues does not pass
 * there. So two things are left. What a call has moved must be what the socket has given or taken for it; and
 * the connection must be known to its process, open both ways and without an error, because its beginning and
 * its end change more than the queues. What waits for the lock of the socket (its backlog) was not
 * acknowledged: the peer sends it again.
 *
 * @param workers the threads with unfinished calls on it
 * @returns why it cannot be read
 */
export function workProblem(
  { state, sk_err, owned, spinLock }: Pick<Sock, 'state' | 'sk_err' | 'owned' | 'spinLock'>,
  socket: Pick<Socket, 'state'>,
  workers: readonly Worker[],
): string | undefined {
  if (state !== tcpState.established || sk_err !== 0) return 'it was ending';
  if (socket.state !== socketConnected.connected) return 'nobody had been told that it was there';
  if (owned === 0 && spinLock === 0) return 'it has packets that nobody was to look at';
  const between = workers.find((worker) => !isCounted(worker));
  if (between !== undefined) return `how much of a ${between.name} is done cannot be told`;
  const isOwned = owned !== 0 && workers.every(({ place }) => place === 'outside');
  return isOwned ? 'which call had its lock cannot be told' : undefined;
}

/** Throws a FileRefusal if somebody was at a connection and that cannot be decided ({@link workProblem}). */
export function checkWork(context: CaptureContext, sock: Sock): void {
  if (!isAtWork(sock)) return;
  const socket = context.kernel.bind(socketStruct).at(sock.sk_socket);
  const problem = workProblem(sock, socket, workersOf(context, sock));
  if (problem === undefined) return;
  throw new FileRefusal(
    `has a TCP connection that was being worked on when the kernel died: ${problem}`,
    'passing',
  );
}
