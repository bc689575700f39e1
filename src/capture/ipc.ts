import { type IpcKind, type IpcObject, type IpcObjects, sysvObjects } from '../linux/ipc.ts';
import { posixQueues } from '../linux/mqueue.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/** How many names a sentence has. */
const MAX_NAMES = 8;

/** All objects that outlive their users, of the initial IPC namespace. */
export function ipcObjects(kernel: Kernel): IpcObjects {
  const [sysv, posix] = [sysvObjects(kernel), posixQueues(kernel)];
  return {
    objects: [...sysv.objects, ...posix.objects],
    problems: [...sysv.problems, ...posix.problems],
  };
}

function listed(names: readonly string[]): string {
  const more = names.length > MAX_NAMES ? ` and ${names.length - MAX_NAMES} more` : '';
  return `${names.slice(0, MAX_NAMES).join(', ')}${more}`;
}

/** One phrase for the objects of each kind: `the System V semaphore set 3`, `2 POSIX message queues (/a, /b)`. */
function phrases(objects: readonly IpcObject[]): string[] {
  const byKind = new Map<IpcKind, string[]>();
  for (const { kind, name } of objects) byKind.set(kind, [...(byKind.get(kind) ?? []), name]);
  return [...byKind].map(([kind, names]) =>
    names.length === 1 ? `the ${kind} ${names[0]}` : `${names.length} ${kind}s (${listed(names)})`,
  );
}

/**
 * What is lost with the IPC objects of the dead kernel, to one process: a reason against one that made an object, used it last or sleeps
 * in a call on it; a note for the others of the same user, who may know it, too.
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

/** The same for the report of the incident, by the user that they belong to: their users may be there after the next start. */
export function ipcLosses({ objects, problems }: IpcObjects): string[] {
  const uids = [...new Set(objects.map(({ uids: [owner = 0] }) => owner))].toSorted((a, b) => a - b);
  const losses = uids.flatMap((uid) =>
    phrases(objects.filter(({ uids: [owner] }) => owner === uid)).map(
      (what) => `${what} of user ${uid} went with the kernel`,
    ),
  );
  return [...losses, ...problems];
}
