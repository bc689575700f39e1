import { constants } from 'node:os';
import { epitems } from '../../linux/eventpoll.ts';
import type { File } from '../../linux/fs.ts';
import { listForEachEntry } from '../../linux/list.ts';
import { mmStruct } from '../../linux/mm-types.ts';
import { forEachThread } from '../../linux/pid.ts';
import { fileKind } from '../../linux/readers/file-kind.ts';
import { ipcSleepers } from '../../linux/readers/ipc-sleepers.ts';
import { kernelStack, loadedModules } from '../../linux/readers/kernel-stack.ts';
import { doneOperation } from '../../linux/readers/semaphore-operation.ts';
import { type Task, taskAt, taskState, taskStruct } from '../../linux/sched.ts';
import { signalStruct } from '../../linux/signal.ts';
import type { Vma } from '../../model/memory.ts';
import { PAGE_SIZE, pageEnd } from '../../system/page.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { callProgress, type Progress } from './call-progress.ts';
import { type SentFile, sentOfFile } from './sendfile-count.ts';
import { isClone } from './syscall-table.ts';
import type { MemoryPatch } from './timeout.ts';
import type { Transferring } from './transferring.ts';

/** Result of a call that the kernel's structures show, whether the call has come there or not. */
export interface KnownResult {
  readonly value: bigint;
  readonly reason: string;
  /** What the call would have written to the program's memory at its end. */
  readonly writes?: MemoryPatch;
}

/** What witnesses besides the call's arguments say of a call that has no result yet. */
export interface Witness {
  readonly progress: Progress;
  readonly known: KnownResult | undefined;
  /** Why it must not be made again unless it has certainly not begun. */
  readonly notTwice: string | undefined;
}

/** Whose call it is. */
export interface Witnessed extends Transferring {
  /** What its stack says makes no difference. */
  readonly isSettled: boolean;
  readonly vmas: readonly Pick<Vma, 'start' | 'end'>[];
}

type Arguments = readonly bigint[];

/** include/uapi/linux/eventpoll.h; a watch that has nothing else is disarmed (EP_PRIVATE_BITS). */
const EPOLLONESHOT = 2 ** 30;
const EPOLL_PRIVATE = [2 ** 28, 2 ** 29, EPOLLONESHOT, 2 ** 31].reduce((sum, bit) => sum + bit, 0);
const MAP_FIXED = 0x10n;
/** End of user space with four levels of page tables (TASK_SIZE_MAX): what is above stays unknown. */
const USER_END = 2 ** 47 - PAGE_SIZE;
/** More children than a process has. */
const MAX_CHILDREN = 1 << 20;

const epollWaits: ReadonlySet<string> = new Set(['epoll_wait', 'epoll_pwait', 'epoll_pwait2']);

function isDisarmed(events: number): boolean {
  const bits = BigInt(events);
  return (bits & BigInt(EPOLLONESHOT)) !== 0n && (bits & ~BigInt(EPOLL_PRIVATE)) === 0n;
}

/**
 * epoll disarms a one-shot watch when it takes its event. All other watches are added anew in the new kernel,
 * which reports what is ready again.
 */
function takesOneShots(kernel: Kernel, file: File | undefined): boolean {
  if (file === undefined || fileKind(kernel, file.f_op) !== 'eventpoll') return false;
  const watches = readable(() => epitems(kernel, file.address, file.private_data));
  return watches === undefined || watches.some(({ events }) => isDisarmed(events));
}

function overlaps(vmas: Witnessed['vmas'], start: number, end: number): boolean {
  return vmas.some((area) => area.start < end && area.end > start);
}

/** A range as munmap(2) takes it; undefined for one that it refuses. */
function rangeOf([start = 0n, length = 0n]: Arguments): { start: number; end: number } | undefined {
  if (start >= BigInt(USER_END) || length === 0n || length > BigInt(USER_END)) return undefined;
  const end = pageEnd(Number(start) + Number(length));
  return Number(start) % PAGE_SIZE === 0 && end <= USER_END ? { start: Number(start), end } : undefined;
}

/** Who changes a semaphore does the operations that others wait to do, and wakes them with the result. */
function semaphoreResult(kernel: Kernel, { task, cpu }: Witnessed): KnownResult | undefined {
  if (cpu !== undefined || ipcSleepers(kernel).has(task.address)) return undefined;
  const { frames, end } = kernelStack(kernel, task, cpu);
  const result = end === 'user' ? doneOperation(kernel, task, frames) : undefined;
  return result === undefined
    ? undefined
    : { value: BigInt(result), reason: 'another process has done its operation for it' };
}

/** IORING_ENTER_EXT_ARG: a wait that may have a time limit (include/uapi/linux/io_uring.h). */
const ENTER_EXT_ARG = 8n;

/**
 * io_uring_enter gives all its requests to the kernel before it sleeps, or does not sleep: that must not be
 * done again. A signal would end it with their number, or with EINTR if there are none.
 */
function ringResult({ isSettled }: Witnessed, given: Arguments): KnownResult | undefined {
  const [, toSubmit = 0n, , flags = 0n] = given;
  const count = BigInt.asUintN(32, toSubmit);
  if (!isSettled) return undefined;
  if (count > 0n) return { value: count, reason: 'it had given its requests to the kernel, and waited' };
  return (flags & ENTER_EXT_ARG) === 0n
    ? undefined
    : {
        value: BigInt(-constants.errno.EINTR),
        reason: 'it waited, maybe for a time of which nothing tells the rest',
      };
}

/** sendfile(2) moves the offset that it was given by what it has sent, when that is done. */
export function sentResult({ bytes: sent, start }: SentFile, [, , offset = 0n]: Arguments): KnownResult {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(start + BigInt(sent));
  return {
    value: BigInt(sent),
    reason: `${sent} bytes were moved`,
    writes: { address: Number(offset), bytes },
  };
}

/** What is true already is not done again: another thread could have been given the place meanwhile. */
function knownResult(
  kernel: Kernel,
  whose: Witnessed,
  name: string,
  given: Arguments,
): KnownResult | undefined {
  const { task, vmas } = whose;
  const [first = 0n] = given;
  if (name === 'munmap') {
    const range = rangeOf(given);
    const isFree = range !== undefined && !overlaps(vmas, range.start, range.end);
    return isFree ? { value: 0n, reason: 'nothing is mapped there any more' } : undefined;
  }
  if (name === 'brk' && first !== 0n && first < BigInt(USER_END)) {
    const above = pageEnd(Number(first));
    const isSet = kernel.bind(mmStruct).at(task.mm).brk === Number(first);
    return isSet && !overlaps(vmas, above, above + 1)
      ? { value: first, reason: 'the heap ends where it is to end' }
      : undefined;
  }
  if (name === 'io_uring_enter') return ringResult(whose, given);
  if (name === 'semop' || name === 'semtimedop') return semaphoreResult(kernel, whose);
  return undefined;
}

/** Why a call must not be made again in a process with several threads. */
function notTwiceAmongThreads(name: string, given: Arguments): string | undefined {
  if (name === 'munmap' || name === 'brk')
    return 'it may have given back memory, where another thread has something by now';
  if (name === 'mmap' && ((given[3] ?? 0n) & MAP_FIXED) !== 0n)
    return 'it replaces what is mapped there, which may be in use again by now';
  return undefined;
}

function notTwice(
  kernel: Kernel,
  { task }: Witnessed,
  name: string,
  given: Arguments,
  file: File | undefined,
): string | undefined {
  if (epollWaits.has(name))
    return takesOneShots(kernel, file) ? 'it may have taken the event of a one-shot watch' : undefined;
  const hasThreads = kernel.bind(signalStruct).at(task.signal).nr_threads > 1;
  return hasThreads ? notTwiceAmongThreads(name, given) : undefined;
}

/**
 * Whether a task has been made that was never woken (TASK_NEW): a child of the thread, of its parent
 * (CLONE_PARENT), or a thread of its process. copy_process (kernel/fork.c) shows it to others at its end.
 */
function hasNewTask(kernel: Kernel, task: Task): boolean {
  const isNew = ({ __state }: Task): boolean => (__state & taskState.new) !== 0;
  const bound = kernel.bind(taskStruct);
  const found = readable(() => {
    for (const parent of [task, taskAt(kernel, task.real_parent)])
      for (const child of listForEachEntry(kernel, parent.children, bound, 'sibling', MAX_CHILDREN))
        if (isNew(child)) return true;
    for (const thread of forEachThread(kernel, task.group_leader)) if (isNew(bound.at(thread))) return true;
    return false;
  });
  return found ?? true;
}

/** Only the server of NFS gives delegations, as a module or in the kernel. */
function hasDelegations(kernel: Kernel): boolean {
  const isBuiltIn = kernel.symbolMaybe('nfsd4_init_leases_net') !== undefined;
  return isBuiltIn || loadedModules(kernel).some(({ name }) => name === 'nfsd');
}

function progressOf(kernel: Kernel, whose: Witnessed, name: string, given: Arguments): Progress {
  const { task, cpu, panicked, isSettled } = whose;
  // The note of the CPU that panicked has the registers of panic() itself.
  if (panicked || isSettled) return { kind: 'unknown', why: undefined };
  const progress = callProgress(name, kernelStack(kernel, task, cpu), given, hasDelegations(kernel));
  if (progress.kind === 'not-begun' && isClone(name) && hasNewTask(kernel, task))
    return { kind: 'unknown', why: 'a child of it had been made, and never ran' };
  return progress;
}

/**
 * What the kernel stack of a thread and the kernel's structures tell of its call.
 *
 * @param file the open file that is the call's first argument, where that matters
 * @throws VmcoreError if a structure cannot be read
 */
export function callWitness(
  kernel: Kernel,
  whose: Witnessed,
  name: string,
  given: Arguments,
  file: File | undefined,
): Witness {
  const sent = name === 'sendfile' ? sentOfFile(kernel, given, whose) : undefined;
  return {
    progress:
      sent?.bytes === 0
        ? { kind: 'not-begun', reason: 'not a byte was moved' }
        : progressOf(kernel, whose, name, given),
    known: sent === undefined ? knownResult(kernel, whose, name, given) : sentResult(sent, given),
    notTwice: notTwice(kernel, whose, name, given, file),
  };
}
