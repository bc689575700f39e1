import { ContainerError, readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, u16, u32, type ViewOf } from '../vmcore/view.ts';
import { type IpcObject, ipcTable, knownPids } from './ipc.ts';
import { listEmpty, listForEach, listForEachEntry } from './list.ts';

/** `struct sem_array` (ipc/sem.c): a set of System V semaphores. */
export const semArray = struct('sem_array', {
  sem_perm: addressOf('sem_perm'),
  id: s32.at('sem_perm.id'),
  /** IPC_PRIVATE (0) of one that has none. */
  key: s32.at('sem_perm.key'),
  uid: u32.at('sem_perm.uid'),
  gid: u32.at('sem_perm.gid'),
  cuid: u32.at('sem_perm.cuid'),
  cgid: u32.at('sem_perm.cgid'),
  mode: u16.at('sem_perm.mode'),
  lock: s32.at('sem_perm.lock.rlock.raw_lock.val.counter'),
  pending_alter: addressOf('pending_alter'),
  pending_const: addressOf('pending_const'),
  /** Operations to be undone, of all processes. */
  list_id: addressOf('list_id'),
  sem_nsems: s32,
  /** Pending operations on several semaphores. */
  complex_count: s32,
  sems: addressOf('sems'),
});

export type SemArray = ViewOf<typeof semArray>;

/** `struct sem`: one semaphore. */
export const semStruct = struct('sem', {
  semval: s32,
  /** The `struct pid` of who changed it last; 0 if nobody has. */
  sempid: pointer,
  lock: s32.at('lock.rlock.raw_lock.val.counter'),
  pending_alter: addressOf('pending_alter'),
  pending_const: addressOf('pending_const'),
  /** Seconds; the time of the last semop(2) on the set is the latest of these, 0 if there was none. */
  sem_otime: s64,
});

export type Sem = ViewOf<typeof semStruct>;

/** `struct sem_queue`: an operation that sleeps. */
export const semQueue = struct('sem_queue', {
  list: addressOf('list'),
  sleeper: pointer,
  pid: pointer,
  /** -EINTR while it waits, then its result. */
  status: s32,
  nsops: s32,
});

/** `struct sem_undo_list`: operations that the kernel would undo at exit, mostly none; threads share it. */
export const semUndoListStruct = struct('sem_undo_list', {
  refcnt: s32.at('refcnt.refs.counter'),
  list_proc: addressOf('list_proc'),
});

/** `struct sem_undo`: what is to be undone on one set. */
export const semUndo = struct('sem_undo', {
  list_proc: addressOf('list_proc'),
  list_id: addressOf('list_id'),
  ulp: pointer,
  /** -1 once the set is removed. */
  semid: s32,
  semadj: addressOf('semadj'),
});

export type SemUndo = ViewOf<typeof semUndo>;

/** The highest value of a semaphore (include/uapi/linux/sem.h). */
export const SEMVMX = 32767;
/** The limit of kernel.sem. */
const MAX_SEMAPHORES = 65536;
const SHORT_BYTES = 2;

/** The semaphores of a set, in order. */
export function semaphoresOf(kernel: Kernel, { address, sem_nsems: count, sems }: SemArray): Sem[] {
  if (count < 0 || count > MAX_SEMAPHORES)
    throw new ContainerError('sem_array', address, `has ${count} semaphores`);
  const Semaphore = kernel.bind(semStruct);
  return Array.from({ length: count }, (_, i) => Semaphore.at(sems + BigInt(i * Semaphore.size)));
}

/** Operations on a set that sleep. */
export function pendingOperations(
  kernel: Kernel,
  set: SemArray,
  semaphores: readonly Sem[],
): ViewOf<typeof semQueue>[] {
  return [set, ...semaphores]
    .flatMap(({ pending_alter, pending_const }) => [pending_alter, pending_const])
    .flatMap((list) => [...listForEachEntry(kernel, list, kernel.bind(semQueue), 'list')]);
}

/** What is to be undone on a set, for each list of a process or of several threads. */
export function undosOnSet(kernel: Kernel, { list_id }: SemArray): SemUndo[] {
  return [...listForEachEntry(kernel, list_id, kernel.bind(semUndo), 'list_id')];
}

/** Whether the end of a thread would undo what it has done to semaphores (exit_sem); `list` may be 0. */
export function hasUndos(kernel: Kernel, list: bigint): boolean {
  return list !== 0n && !listEmpty(kernel, kernel.bind(semUndoListStruct).at(list).list_proc);
}

/** What a process or thread would have undone, for each set; `list` is its `struct sem_undo_list`. */
export function undosOfList(kernel: Kernel, list: bigint): SemUndo[] {
  const Undo = kernel.bind(semUndo);
  const offset = BigInt(Undo.offsetOf('list_proc'));
  const { list_proc } = kernel.bind(semUndoListStruct).at(list);
  return [...listForEach(kernel, list_proc)].map((node) => Undo.at(node - offset));
}

/**
 * What is added to each semaphore of a set when it is undone. 6.1 has a pointer to
 * the numbers, 6.12 the numbers themselves.
 */
export function adjustmentsOf(kernel: Kernel, undo: SemUndo, count: number): number[] {
  const isPart = kernel.layouts.member('sem_undo', 'semadj')?.kind === 'array';
  const first = isPart ? undo.semadj : kernel.memory.pointer(undo.semadj);
  const bytes = kernel.memory.read(first, count * SHORT_BYTES);
  return Array.from({ length: count }, (_, i) => bytes.readInt16LE(i * SHORT_BYTES));
}

/** All sets of the initial IPC namespace, and why not all of them are there. */
export function semaphoreSets(kernel: Kernel): {
  readonly objects: readonly SemArray[];
  readonly problems: readonly string[];
} {
  const Sets = kernel.bind(semArray);
  return ipcTable(kernel, 0, 'System V semaphores', (_, entry) => Sets.containerOf(entry, 'sem_perm'));
}

/**
 * A set as one of the objects that outlive their users; who waits is missing if that cannot be read. Throws a
 * VmcoreError.
 */
export function semaphoreObject(kernel: Kernel, set: SemArray): IpcObject {
  const { id, uid, cuid } = set;
  const semaphores = semaphoresOf(kernel, set);
  const users = knownPids([
    ...semaphores.map(({ sempid }) => sempid),
    ...(readable(() => pendingOperations(kernel, set, semaphores)) ?? []).map(({ pid }) => pid),
  ]);
  return { kind: 'System V semaphore set', name: String(id), uids: [uid, cuid], users };
}
