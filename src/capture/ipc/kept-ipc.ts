import type { IpcObject } from '../../linux/ipc.ts';
import { forEachThread, pidNr, pidTask } from '../../linux/pid.ts';
import { taskAt } from '../../linux/sched.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from '../files/context.ts';
import type { GroupSelection } from '../files/kind.ts';
import { FileRefusal } from '../files/refusal.ts';
import type { SharedResource } from '../shared-resource.ts';
import { effectiveUid, ipcLosses, loseIpc } from './ipc.ts';

/** An object that comes back with the protected processes that use it. */
interface Kept<Part> {
  readonly part: Part;
  readonly users: ReadonlySet<number>;
  readonly object: IpcObject;
  /** A group has it that comes back. */
  isKept: boolean;
}

/** The objects of one kind that come back, and those that do not. */
export class KeptObjects<Part> {
  readonly kept: Kept<Part>[] = [];
  readonly lost: IpcObject[] = [];
  readonly problems: string[] = [];
  /** Why an object does not come back, by its number. */
  readonly refused = new Map<number, string>();
}

/** What is particular to a kind of objects of System V that outlive their users. */
export interface KeptKind<Found, Part> {
  readonly State: new () => KeptObjects<Part>;
  find(kernel: Kernel): { readonly objects: readonly Found[]; readonly problems: readonly string[] };
  /** As it is told of if its users do not come back. Throws a VmcoreError. */
  object(kernel: Kernel, found: Found): IpcObject;
  /** Protected processes that use it besides those that its object names. */
  otherUsers?(context: CaptureContext, found: Found): readonly number[];
  /**
   * What has to be known of it to make it again, and notes for its users. Throws a FileRefusal, of which the
   * reason goes on after `which`, or a VmcoreError.
   */
  capture(context: CaptureContext, found: Found): { readonly part: Part; readonly notes: readonly string[] };
}

/** Protected processes by the `struct pid` of each of their threads. */
class ProtectedPids {
  readonly byPid: ReadonlyMap<bigint, number>;

  constructor({ kernel, tasks }: CaptureContext) {
    const byPid = new Map<bigint, number>();
    for (const { pid, task } of tasks.values()) {
      readable(() => {
        for (const thread of forEachThread(kernel, task)) byPid.set(taskAt(kernel, thread).thread_pid, pid);
      });
    }
    this.byPid = byPid;
  }
}

/** The protected process that a `struct pid` belongs to, or to a thread of which it belongs. */
export function protectedProcess(context: CaptureContext, pid: bigint): number | undefined {
  return context.of(ProtectedPids).byPid.get(pid);
}

/** A process that is alive and not protected, by its `struct pid`: `PID 12 (name)`. */
export function outsiderOf(context: CaptureContext, pid: bigint): string | undefined {
  if (pid === 0n || protectedProcess(context, pid) !== undefined) return undefined;
  const { kernel, ended } = context;
  const task = pidTask(kernel, pid, 'PIDTYPE_PID');
  return task === undefined || ended.threads.has(task) || ended.leaders.has(task)
    ? undefined
    : `PID ${pidNr(kernel, pid)} (${taskAt(kernel, task).comm})`;
}

/** A note for those who used an object together with others, who went with the kernel. */
export function outsiderNotes(context: CaptureContext, { kind, name, users }: IpcObject): string[] {
  const outsiders = [...new Set(users.flatMap((pid) => outsiderOf(context, pid) ?? []))];
  return outsiders.map((who) => `the ${kind} ${name} was used by ${who} as well, which is not protected`);
}

function reasonOf(error: unknown): string {
  if (error instanceof FileRefusal) return error.reason;
  if (!(error instanceof VmcoreError)) throw error;
  return `cannot be read: ${error.message}`;
}

/** Finds one object's users, and what it has. Throws as `KeptKind.capture`. */
function collectObject<Found, Part>(
  context: CaptureContext,
  kind: KeptKind<Found, Part>,
  found: Found,
  { kept, lost }: KeptObjects<Part>,
): void {
  const object = kind.object(context.kernel, found);
  const users = new Set([...namedUsers(context, object), ...(kind.otherUsers?.(context, found) ?? [])]);
  if (users.size === 0) {
    lost.push(object);
    return;
  }
  context.join([...users], `a ${object.kind}`);
  const { part, notes } = kind.capture(context, found);
  for (const note of [...notes, ...outsiderNotes(context, object)])
    for (const pid of users) context.note(pid, note);
  kept.push({ part, users, object, isKept: false });
  tellOwners(context, object, users);
}

/** A note for other processes of its user, who may know an object: it comes back only with who uses it. */
function tellOwners(
  context: CaptureContext,
  { kind, name, uids }: IpcObject,
  users: ReadonlySet<number>,
): void {
  const note = `the ${kind} ${name} of its user comes back only with ${[...users].toSorted((a, b) => a - b).join(', ')}`;
  for (const task of context.tasks.values()) {
    const uid = users.has(task.pid) ? undefined : effectiveUid(context.kernel, task);
    if (uid !== undefined && uids.includes(uid)) context.note(task.pid, note);
  }
}

/** Protected processes that an object names. */
function namedUsers(context: CaptureContext, { users }: Pick<IpcObject, 'users'>): number[] {
  return users.flatMap((pid) => protectedProcess(context, pid) ?? []);
}

function refuseUsers<Found extends { readonly id: number }, Part>(
  context: CaptureContext,
  kind: KeptKind<Found, Part>,
  found: Found,
  reason: string,
): void {
  const { lost, problems, refused } = context.of(kind.State);
  const object = readable(() => kind.object(context.kernel, found));
  const id = readable(() => found.id);
  if (id !== undefined) refused.set(id, reason);
  if (object === undefined) {
    problems.push(`an object of System V${id === undefined ? '' : ` with number ${id}`} ${reason}`);
    return;
  }
  // What cannot be read of it hides no others.
  const others = readable(() => kind.otherUsers?.(context, found)) ?? [];
  const users = new Set([...namedUsers(context, object), ...others]);
  for (const pid of users) context.refuse(pid, `uses the ${object.kind} ${object.name}, which ${reason}`);
  // Who uses it has another reason than that it is lost.
  lost.push({ ...object, users: [] });
}

/**
 * A kind of objects of the initial IPC namespace that come back with those who have used them last, sleep in
 * a call on them, or are known by them in another way. What nobody of the protected processes uses is lost.
 */
export function keptIpc<Found extends { readonly id: number }, Part>(
  kind: KeptKind<Found, Part>,
): SharedResource {
  return {
    collect(context) {
      const state = context.of(kind.State);
      const { objects, problems } = kind.find(context.kernel);
      state.problems.push(...problems);
      for (const found of objects) {
        try {
          collectObject(context, kind, found, state);
        } catch (error) {
          refuseUsers(context, kind, found, reasonOf(error));
        }
      }
      loseIpc(context, { objects: state.lost, problems: state.problems });
    },
    losses(context) {
      const { kept, lost, problems } = context.of(kind.State);
      const left = kept.filter(({ isKept }) => !isKept).map(({ object }) => object);
      return ipcLosses({ objects: [...lost, ...left], problems });
    },
  };
}

/** The objects of a kind that processes of a group use. */
export function keptParts<Part>(
  State: new () => KeptObjects<Part>,
  { context, pids }: GroupSelection,
): Part[] {
  const own = context.of(State).kept.filter(({ users }) => !users.isDisjointFrom(pids));
  for (const object of own) object.isKept = true;
  return own.map(({ part }) => part);
}
