import { readCred } from '../../linux/cred.ts';
import type { IpcKind, IpcObject, IpcObjects } from '../../linux/ipc.ts';
import { taskAt } from '../../linux/sched.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { FileTask } from '../file-capture.ts';
import type { CaptureContext } from '../files/context.ts';
import type { SharedResource } from '../shared-resource.ts';

/** How many names a sentence has. */
const MAX_NAMES = 8;

function listed(names: readonly string[]): string {
  const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : '';
  return `${names.slice(0, MAX_NAMES).join(', ')}${more}`;
}

/**
 * One phrase for the objects of each kind: `the System V semaphore set 3`, `2 POSIX message queues (/a, /b)`.
 */
function phrases(objects: readonly IpcObject[]): string[] {
  const byKind = new Map<IpcKind, string[]>();
  for (const { kind, name } of objects) byKind.set(kind, [...(byKind.get(kind) ?? []), name]);
  return [...byKind].map(([kind, names]) =>
    names.length === 1 ? `the ${kind} ${names[0]}` : `${names.length} ${kind}s (${listed(names)})`,
  );
}

/**
 * What is lost with the IPC objects of the dead kernel, to one process: a reason against one that made an
 * object, used it last or sleeps in a call on it; a note for the others of the same user, who may know it,
 * too.
 *
 * @param pid address of the `struct pid` of the process
 */
export function ipcFindings(
  { objects, problems }: IpcObjects,
  pid: bigint,
  uid: number,
): { reasons: string[]; notes: string[] } {
  const used = objects.filter(({ users }) => users.includes(pid));
  const others = objects.filter((object) => !used.includes(object) && object.uids.includes(uid));
  return {
    reasons: phrases(used).map((what) => `uses ${what}, which went with the kernel`),
    notes: [
      ...phrases(others).map((what) => `${what} of its user went with the kernel`),
      ...problems.map((problem) => `whether it has lost some of them is not known: ${problem}`),
    ],
  };
}

/**
 * The same for the report of the incident, by the user that they belong to: their users may be there after
 * the next start.
 */
export function ipcLosses({ objects, problems }: IpcObjects): string[] {
  const uids = [...new Set(objects.map(({ uids: [owner = 0] }) => owner))].toSorted((a, b) => a - b);
  const losses = uids.flatMap((uid) =>
    phrases(objects.filter(({ uids: [owner] }) => owner === uid)).map(
      (what) => `${what} of user ${uid} went with the kernel`,
    ),
  );
  return [...losses, ...problems];
}

/** By which user's rights a process runs; undefined if it cannot be read. */
export function effectiveUid(kernel: Kernel, { task }: FileTask): number | undefined {
  return readable(() => readCred(kernel, taskAt(kernel, task).real_cred).euid);
}

/**
 * What is lost to one process; nothing if it cannot be read: its own capture says why it cannot come back
 * then.
 */
function findingsOf(kernel: Kernel, lost: IpcObjects, { task }: FileTask): ReturnType<typeof ipcFindings> {
  try {
    const { thread_pid, real_cred } = taskAt(kernel, task);
    return ipcFindings(lost, thread_pid, readCred(kernel, real_cred).euid);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { reasons: [], notes: [] };
  }
}

/** Refuses who uses one of these objects, and tells others of the same user that they are lost. */
export function loseIpc(context: CaptureContext, lost: IpcObjects): void {
  for (const task of context.tasks.values()) {
    const { reasons, notes } = findingsOf(context.kernel, lost, task);
    for (const reason of reasons) context.refuse(task.pid, reason);
    for (const note of notes) context.note(task.pid, note);
  }
}

/** A kind of IPC objects that are not carried. */
export function lostIpc(read: (kernel: Kernel) => IpcObjects): SharedResource {
  return {
    collect: (context) => loseIpc(context, read(context.kernel)),
    losses: ({ kernel }) => ipcLosses(read(kernel)),
  };
}
