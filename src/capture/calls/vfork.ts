import { threadSize } from '../../linux/arch/index.ts';
import { completionStruct } from '../../linux/completion.ts';
import type { Task } from '../../linux/sched.ts';
import type { Thread, UserRegisters } from '../../model/process.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Endings } from '../endings/endings.ts';
import type { MemoryUsers } from '../memory/memory-users.ts';
import type { TaskGroup } from '../tasks.ts';
import { unfinishedCall } from './unfinished-call.ts';

/**
 * A child that has its parent's memory until it executes a program or ends (CLONE_VM and CLONE_VFORK), and
 * the thread that waits for that.
 */
export interface Vfork {
  readonly child: TaskGroup;
  readonly parent: TaskGroup;
  readonly waiter: Task;
}

/** Calls that end in kernel_clone() (kernel/fork.c), and can wait there. */
const calls: ReadonlySet<string> = new Set(['vfork', 'clone', 'clone3']);

/** Whether a thread is in a call that makes a child, and has no result yet. */
function isMakingChild(kernel: Kernel, task: Task): boolean {
  return calls.has(unfinishedCall(kernel, task)?.name ?? '');
}

/**
 * The thread that waits for a child. `vfork_done` leads to a completion on its kernel stack (kernel_clone).
 * It is NULL before the wait can end: complete_vfork_done() takes it away first, and so does a wait that is
 * killed (wait_for_vfork_done). So the child is there, and its number is what the call returns. Throws a
 * VmcoreError.
 */
function waitOf(kernel: Kernel, child: TaskGroup, groups: readonly TaskGroup[]): Vfork | undefined {
  const [task, ...more] = child.threads;
  if (task === undefined || more.length > 0 || task.vfork_done === 0n) return undefined;
  for (const parent of groups) {
    // CLONE_PARENT would give the child another one than the thread that waits.
    const waiter = parent.threads.find(({ address }) => address === task.real_parent);
    if (waiter === undefined) continue;
    const place = task.vfork_done - waiter.stack;
    const isOnStack = place >= 0n && place < BigInt(threadSize(kernel));
    if (!isOnStack || waiter.mm !== task.mm || !isMakingChild(kernel, waiter)) return undefined;
    const { done } = kernel.bind(completionStruct).at(task.vfork_done);
    return done === 0 ? { child, parent, waiter } : undefined;
  }
  return undefined;
}

/**
 * Children in vfork that can come back with their parents: as children that fork has made. POSIX lets vfork
 * be a fork.
 */
export class Vforks {
  readonly #kernel: Kernel;
  readonly #captured: ReadonlyMap<number, TaskGroup>;
  readonly #byChild = new Map<number, Vfork>();
  readonly #byWaiter = new Map<bigint, Vfork>();
  /** The processes that use an address space, the one that it belongs to first. */
  readonly #families = new Map<bigint, readonly TaskGroup[]>();
  readonly #hasEnded: (pid: number) => boolean;

  /**
   * @param groups all processes that are to come back
   * @param endings those of them that were ending, and have ended
   */
  constructor(
    kernel: Kernel,
    groups: readonly TaskGroup[],
    { byMm }: MemoryUsers,
    endings: Pick<Endings, 'of'>,
  ) {
    this.#kernel = kernel;
    this.#hasEnded = (pid) => endings.of({ pid }) !== undefined;
    this.#captured = new Map(groups.map((group) => [group.pid, group]));
    const found = groups.flatMap((group) => readable(() => waitOf(kernel, group, groups)) ?? []);
    for (const mm of new Set(found.map(({ waiter }) => waiter.mm))) {
      const family = this.#familyOf(byMm.get(mm) ?? [], found);
      if (family === undefined) continue;
      this.#families.set(mm, family);
      for (const vfork of found.filter(({ waiter }) => waiter.mm === mm)) {
        this.#byChild.set(vfork.child.pid, vfork);
        this.#byWaiter.set(vfork.waiter.address, vfork);
      }
    }
  }

  /**
   * The processes that use a memory, its owner first. Undefined unless all others are children in vfork, each
   * with a thread of its own that waits for it.
   */
  #familyOf(pids: readonly number[], found: readonly Vfork[]): readonly TaskGroup[] | undefined {
    const children = found.filter(({ child }) => pids.includes(child.pid));
    // Who has ended has no memory, unless somebody waits for it.
    const users = pids.filter(
      (pid) => !this.#hasEnded(pid) || children.some(({ child }) => child.pid === pid),
    );
    const members = users.flatMap((pid) => this.#captured.get(pid) ?? []);
    const owners = members.filter((member) => !children.some(({ child }) => child === member));
    const waits = new Set(children.map(({ waiter }) => waiter.address));
    const isWhole = members.length === users.length && owners.length === 1 && waits.size === children.length;
    return isWhole ? [...owners, ...children.map(({ child }) => child)] : undefined;
  }

  /** The process itself, and those with which it shares its memory by vfork; the owner is the first. */
  familyOf(group: TaskGroup): readonly TaskGroup[] {
    const family = this.#families.get(group.leader.mm) ?? [];
    return family.some(({ pid }) => pid === group.pid) ? family : [group];
  }

  /** Why the execve of a process, with its threads as they are captured, cannot be made again. */
  execProblems({ pid }: TaskGroup, [first]: readonly Pick<Thread, 'registers'>[]): string[] {
    const wait = this.#byChild.get(pid);
    if (wait === undefined || first === undefined) return [];
    return execProblem(wait, first.registers) ?? [];
  }

  /** Number of the child that a thread waits for. */
  childOf({ address }: Pick<Task, 'address'>): number | undefined {
    return this.#byWaiter.get(address)?.child.pid;
  }

  /** Why a process cannot come back that shares memory by other means than vfork. */
  problems(group: TaskGroup, { byMm }: MemoryUsers): string[] {
    const family = new Set(this.familyOf(group).map(({ pid }) => pid));
    const others = (byMm.get(group.leader.mm) ?? []).filter(
      (pid) => pid !== group.pid && !family.has(pid) && !this.#hasEnded(pid),
    );
    const known = others.filter((pid) => this.#captured.has(pid));
    const strangers = others.filter((pid) => !this.#captured.has(pid));
    const share = 'shares its address space with';
    return [
      ...(known.length > 0 ? [`${share} ${known.join(', ')}`] : []),
      ...(strangers.length > 0
        ? [`${share} ${strangers.join(', ')}, which is not protected or cannot be read`]
        : []),
    ];
  }

  /** Why a process cannot come back that has not left vfork. */
  passingProblems(group: TaskGroup): string[] {
    const wait = this.#byChild.get(group.pid);
    return [
      ...group.threads
        .filter(({ vfork_done }) => vfork_done !== 0n && wait === undefined)
        .map(({ pid }) => `thread ${pid} has not left vfork yet`),
      ...(wait === undefined ? [] : childProblems(this.#kernel, wait)),
    ];
  }

  /** What is another than before, for the report. */
  notes(group: TaskGroup): string[] {
    const notes: string[] = [];
    const wait = this.#byChild.get(group.pid);
    if (wait !== undefined) {
      notes.push(`it was in vfork, and has a copy of the memory now that it shared with ${wait.parent.pid}`);
    }
    for (const { pid, address } of group.threads) {
      const child = this.childOf({ address });
      if (child === undefined) continue;
      const how = this.#hasEnded(child)
        ? 'which has ended'
        : 'which has a copy of its memory: only its exit status tells whether its execve fails';
      notes.push(`thread ${pid} no longer waits in vfork for ${child}, ${how}`);
    }
    return notes;
  }
}

/** Why a child cannot be given a copy of what it shares. Throws a VmcoreError. */
function childProblems(kernel: Kernel, { child: { leader }, waiter }: Vfork): string[] {
  const { pid, clear_child_tid, set_child_tid, sighand, files } = leader;
  const parent = waiter.tgid;
  const says: readonly (string | false)[] = [
    // mm_release() clears the word and wakes who waits for it, in the parent's memory.
    clear_child_tid !== 0n &&
      `thread ${pid} is to tell its parent in memory that it has left vfork (CLONE_CHILD_CLEARTID)`,
    set_child_tid !== 0n &&
      `thread ${pid} may still have to tell its parent its number in memory (CLONE_CHILD_SETTID)`,
    sighand === waiter.sighand && `shares its signal handlers with ${parent} (CLONE_SIGHAND)`,
    // The parent goes on at once, and would close what the child has yet to use.
    files === waiter.files && `shares its descriptors with ${parent} (CLONE_FILES)`,
    // Who has the lock is in the parent's memory, and nobody ever gives it back in the copy.
    /^futex/.test(unfinishedCall(kernel, leader)?.name ?? '') &&
      `thread ${pid} waits for a lock of ${parent}'s`,
  ];
  return says.filter((one) => one !== false);
}

/**
 * Why the execve of a child in vfork cannot be made again though it has not left vfork. Just before it does,
 * the kernel takes its segment bases away (deactivate_mm in mm_release, kernel/fork.c); until then they are
 * its parent's.
 */
function execProblem(
  { child: { leader }, waiter }: Vfork,
  { fsBase, gsBase }: Pick<UserRegisters, 'fsBase' | 'gsBase'>,
): string[] | undefined {
  if (!leader.in_execve || leader.robust_list !== 0n) return undefined;
  const { fsbase, gsbase } = waiter.thread;
  return fsBase === fsbase && gsBase === gsbase
    ? undefined
    : [`thread ${leader.pid} was in the middle of execve`];
}
