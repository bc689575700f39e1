import { forEachThread, pidNr } from '../../linux/pid.ts';
import { taskAt } from '../../linux/sched.ts';
import {
  adjustmentsOf,
  pendingOperations,
  SEMVMX,
  type Sem,
  type SemArray,
  semaphoreObject,
  semaphoreSets,
  semaphoresOf,
  semUndoListStruct,
  undosOfList,
  undosOnSet,
} from '../../linux/sem.ts';
import type { SemaphoreSet, SemaphoreUndo } from '../../model/semaphore-set.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { CaptureContext } from '../files/context.ts';
import type { GroupSelection } from '../files/kind.ts';
import { FileRefusal, momentOfError } from '../files/refusal.ts';
import type { SharedResource } from '../shared-resource.ts';
import { KeptObjects, keptIpc, keptParts, protectedProcess } from './kept-ipc.ts';

class SemaphoreSets extends KeptObjects<SemaphoreSet> {}

/** Threads that have a list of operations to be undone. */
interface UndoUser {
  readonly pid: number;
  /** Of the process that have this list, and all that it has. */
  sharing: number;
  readonly threads: number;
}

/** Who of the protected processes would undo what. */
class UndoUsers {
  /** By the address of the list. */
  readonly byList = new Map<bigint, UndoUser[]>();

  constructor({ kernel, tasks }: CaptureContext) {
    for (const { pid, task } of tasks.values()) {
      // What of a process cannot be read is a reason of its own.
      const lists = readable(() => [...forEachThread(kernel, task)].map((at) => taskAt(kernel, at).sysvUndo));
      for (const list of lists ?? []) if (list !== 0n) this.#add(list, pid, lists?.length ?? 0);
    }
  }

  #add(list: bigint, pid: number, threads: number): void {
    const users = this.byList.get(list) ?? [];
    const known = users.find((user) => user.pid === pid);
    if (known === undefined) users.push({ pid, sharing: 1, threads });
    else known.sharing++;
    this.byList.set(list, users);
  }
}

/**
 * The process that would undo operations of a list, undefined if none does that is protected. Throws a
 * FileRefusal if others share the list, or not all its threads do: threads of one process always share it
 * afterwards.
 */
function undoerOf(context: CaptureContext, list: bigint): number | undefined {
  const users = context.of(UndoUsers).byList.get(list) ?? [];
  const [user, other] = users;
  if (user === undefined) return undefined;
  const { refcnt } = context.kernel.bind(semUndoListStruct).at(list);
  if (other !== undefined)
    throw new FileRefusal(`is undone by ${user.pid} and ${other.pid} together (CLONE_SYSVSEM)`);
  if (user.sharing !== user.threads || refcnt !== user.sharing)
    throw new FileRefusal(`is undone by others than the threads of ${user.pid} together (CLONE_SYSVSEM)`);
  return user.pid;
}

function undosOf(context: CaptureContext, set: SemArray): SemaphoreUndo[] {
  const { kernel } = context;
  return undosOnSet(kernel, set).flatMap((undo) => {
    if (undo.semid !== set.id) throw new FileRefusal(`is damaged: it is undone as set ${undo.semid}`);
    const adjustments = adjustmentsOf(kernel, undo, set.sem_nsems);
    const changes = adjustments.flatMap((adjustment, semaphore) =>
      adjustment === 0 ? [] : [{ semaphore, adjustment }],
    );
    if (changes.length === 0) return [];
    const pid = undoerOf(context, undo.ulp);
    if (pid === undefined)
      throw new FileRefusal('a process that is not protected would have changed at its end (SEM_UNDO)');
    return changes.map((change) => ({ pid, ...change }));
  });
}

/** Throws a FileRefusal if the set was being changed when the kernel died, or is damaged. */
function checkSet(
  { lock, complex_count }: SemArray,
  all: readonly Sem[],
  operations: readonly { nsops: number }[],
): void {
  if (lock !== 0 || all.some((semaphore) => semaphore.lock !== 0)) throw new FileRefusal('was being changed');
  const complex = operations.filter(({ nsops }) => nsops > 1).length;
  if (complex !== complex_count)
    throw new FileRefusal(`is damaged: it counts ${complex_count} operations that wait, and has ${complex}`);
  const wrong = all.find(({ semval }) => semval < 0 || semval > SEMVMX);
  if (wrong !== undefined) throw new FileRefusal(`is damaged: a semaphore has the value ${wrong.semval}`);
}

function captureSet(context: CaptureContext, set: SemArray): { part: SemaphoreSet; notes: string[] } {
  const { kernel } = context;
  const all = semaphoresOf(kernel, set);
  const operations = pendingOperations(kernel, set, all);
  checkSet(set, all, operations);
  const { id, key, uid, gid, cuid, cgid, mode } = set;
  const part: SemaphoreSet = {
    ...{ id, key: key >>> 0, uid, gid, cuid, cgid, mode: mode & 0o777 },
    semaphores: all.map(({ semval: value, sempid }) => ({
      value,
      lastPid: protectedProcess(context, sempid),
    })),
    isUsed: all.some(({ sem_otime }) => sem_otime !== 0n),
    undos: undosOf(context, set),
  };
  return { part, notes: notesOf(context, part, all, operations.length) };
}

/** What is not as it was: facts that programs hardly look at. */
function notesOf(
  { kernel }: CaptureContext,
  { id, semaphores }: SemaphoreSet,
  all: readonly Sem[],
  sleepers: number,
): string[] {
  const what = `the System V semaphore set ${id}`;
  const gone = all.filter(({ sempid }, i) => sempid !== 0n && semaphores[i]?.lastPid === undefined);
  const pids = [...new Set(gone.map(({ sempid }) => readable(() => pidNr(kernel, sempid)) ?? 0))];
  return [
    `${what} has the times of its restore (sem_otime, sem_ctime)`,
    ...(pids.length > 0 ? [`${what} no longer tells that ${pids.join(', ')} changed it last (GETPID)`] : []),
    ...(sleepers > 1 ? [`those who wait for ${what} may get it in another order`] : []),
  ];
}

/** Protected processes that have something to undo on a set. */
function undoers(context: CaptureContext, set: SemArray): number[] {
  const { byList } = context.of(UndoUsers);
  return undosOnSet(context.kernel, set)
    .filter((undo) =>
      adjustmentsOf(context.kernel, undo, set.sem_nsems).some((adjustment) => adjustment !== 0),
    )
    .flatMap(({ ulp }) => (byList.get(ulp) ?? []).map(({ pid }) => pid));
}

const kept = keptIpc<SemArray, SemaphoreSet>({
  State: SemaphoreSets,
  find: semaphoreSets,
  object: semaphoreObject,
  otherUsers: undoers,
  capture: captureSet,
});

/**
 * System V semaphores of the initial IPC namespace: a set that protected processes have changed last, wait
 * for, or would change at their end (SEM_UNDO), comes back with them.
 */
export const semaphores: SharedResource = {
  collect(context) {
    kept.collect(context);
    for (const { pid } of context.tasks.values()) checkUndos(context, pid);
  },
  losses: (context) => kept.losses(context),
};

/** Refuses who would undo operations on a set that does not come back. */
function checkUndos(context: CaptureContext, pid: number): void {
  const lists = [...context.of(UndoUsers).byList].filter(([, users]) =>
    users.some((user) => user.pid === pid),
  );
  for (const [list] of lists) {
    const reason = 'has System V semaphores to undo';
    try {
      for (const problem of undoProblems(context, pid, list)) context.refuse(pid, `${reason}: ${problem}`);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      context.refuse(pid, `${reason} that cannot be read: ${error.message}`, momentOfError(error));
    }
  }
}

function undoProblems(context: CaptureContext, pid: number, list: bigint): string[] {
  const { kernel } = context;
  const { kept: sets, refused } = context.of(SemaphoreSets);
  const { objects } = semaphoreSets(kernel);
  return undosOfList(kernel, list).flatMap((undo) => {
    const { semid } = undo;
    // The set was removed.
    if (semid === -1) return [];
    const set = objects.find(({ id }) => id === semid);
    if (set === undefined) return [`the set ${semid} is not found in the initial IPC namespace`];
    if (adjustmentsOf(kernel, undo, set.sem_nsems).every((adjustment) => adjustment === 0)) return [];
    const isKept = sets.some(
      ({ part }) => part.id === semid && part.undos.some((known) => known.pid === pid),
    );
    return isKept ? [] : [`the set ${semid} ${refused.get(semid) ?? 'does not know of it'}`];
  });
}

/** The sets that processes of a group use. */
export function semaphoresOfGroup(group: GroupSelection): SemaphoreSet[] {
  return keptParts(SemaphoreSets, group);
}
