import { initialMountNamespace } from '../../linux/dcache.ts';
import { fileOwner } from '../../linux/file.ts';
import type { File } from '../../linux/fs.ts';
import { pidNr } from '../../linux/pid.ts';
import type { TaskList } from '../../linux/readers/task-list.ts';
import type { Clocks } from '../../linux/timekeeping.ts';
import type { OpenFile } from '../../model/file.ts';
import type { SharingEdge } from '../../model/group.ts';
import {
  type AllowedLosses,
  type Loss,
  type LossKind,
  noneAllowed,
  type UnexpectedLoss,
} from '../../model/loss.ts';
import type { FileOwner } from '../../model/open-file.ts';
import type { Moment, Repair } from '../../model/verdict.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { type Disks, type EndedTasks, type FileReason, type FileTask, noneEnded } from '../file-capture.ts';
import { mountNamespaceOf, noSandboxes, type Sandboxes } from '../sandboxes.ts';
import { type Holder, SystemFiles, showHolder } from './holders/holders.ts';
import { Mappers } from './holders/mappers.ts';
import { FileRefusal } from './refusal.ts';

/** Of a file that no descriptor leads to. */
export const noOwner: FileOwner = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 };

/** What of a capture is there at times only. */
export interface Surroundings {
  readonly disks?: Disks | undefined;
  /** What processes had that have ended. */
  readonly ended?: EndedTasks | undefined;
  readonly sandboxes?: Sandboxes | undefined;
  /** Without it nothing may be lost. */
  readonly allowedLosses?: AllowedLosses | undefined;
  /** Processes that are captured for their crash procedure alone: see `UnexpectedLoss`. */
  readonly forProcedure?: ReadonlySet<number> | undefined;
}

/**
 * What a capture of files has found so far. What belongs to one kind of file or memory is in that kind's own
 * state: see `of`.
 */
export class CaptureContext {
  readonly kernel: Kernel;
  readonly clocks: Clocks;
  readonly tasks: ReadonlyMap<number, FileTask>;
  readonly system: SystemFiles;
  readonly mappers: Mappers;
  /** All processes of the system. */
  readonly list: TaskList;
  /** Undefined where a dump is looked at on another machine. */
  readonly disks: Disks | undefined;
  readonly sandboxes: Sandboxes;
  readonly ended: EndedTasks;
  readonly allowedLosses: AllowedLosses;
  readonly forProcedure: ReadonlySet<number>;

  readonly #edges = new Edges((pid) => this.tasks.has(pid));
  readonly edges = this.#edges.all;
  readonly #dependences = new Edges((pid) => this.tasks.has(pid));
  readonly dependences = this.#dependences.all;
  readonly #reasons = new Sentences();
  readonly refusals = this.#reasons.byPid;
  readonly refusalsForNow = new Map<number, FileReason[]>();
  readonly #notes = new Sentences();
  readonly notes = this.#notes.byPid;
  readonly repairs = new Map<number, Repair[]>();
  readonly losses = new Map<number, Loss[]>();
  readonly unexpected = new Map<number, UnexpectedLoss[]>();

  /** Open files by the address of their struct file; a refusal is remembered too, and that one is begun. */
  readonly opened = new Map<bigint, OpenFile | FileRefusal | 'begun'>();
  readonly files = new Map<number, OpenFile>();
  readonly #states = new Map<unknown, unknown>();
  readonly #pathsInUse = new Map<number, Set<number>>();
  #lastId = 0;

  constructor(
    kernel: Kernel,
    clocks: Clocks,
    tasks: readonly FileTask[],
    list: TaskList,
    surroundings: Surroundings = {},
  ) {
    const { disks, ended, sandboxes, allowedLosses, forProcedure } = surroundings;
    this.kernel = kernel;
    this.clocks = clocks;
    this.tasks = new Map(tasks.map((task) => [task.pid, task]));
    this.list = list;
    this.disks = disks;
    this.sandboxes = sandboxes ?? noSandboxes;
    this.ended = ended ?? noneEnded;
    this.allowedLosses = allowedLosses ?? noneAllowed;
    this.forProcedure = forProcedure ?? new Set();
    this.system = new SystemFiles(kernel, new Set(this.tasks.keys()), list, this.ended);
    this.mappers = new Mappers(kernel, this.tasks, list, this.ended);
  }

  /** What a kind of file or memory has found: an object of its class, made when it is first asked for. */
  of<State>(Kind: new (context: CaptureContext) => State): State {
    const known = this.#states.get(Kind);
    // Whatever is under a class was made by it.
    if (known !== undefined) return known as State;
    const state = new Kind(this);
    this.#states.set(Kind, state);
    return state;
  }

  /** A number that no file, ghost or shared memory of this capture has yet; from 1 on. */
  nextId(): number {
    return ++this.#lastId;
  }

  /** The mount namespace of a protected process; the initial one of any other, whose files are not opened. */
  namespaceOf(pid: number | undefined): bigint {
    const task = pid === undefined ? undefined : this.tasks.get(pid)?.task;
    const own = task === undefined ? undefined : mountNamespaceOf(this.kernel, task);
    return own ?? initialMountNamespace(this.kernel);
  }

  /** That of the first protected one of some holders: those of others do not come back with it. */
  namespaceOfHolders(holders: readonly Holder[]): bigint {
    return this.namespaceOf(holders.find(({ isProtected }) => isProtected)?.pid);
  }

  /** Whether a protected one of some holders is in a sandbox: it is restored while the system boots. */
  isSandboxed(holders: readonly Holder[]): boolean {
    return holders.some(({ pid }) => {
      const task = this.tasks.get(pid)?.task;
      const own = task === undefined ? undefined : mountNamespaceOf(this.kernel, task);
      return own !== undefined && this.sandboxes.unitOf(own) !== undefined;
    });
  }

  /** The fields that all open files have. */
  common(file: File): { id: number; flags: number; owner: FileOwner } {
    const { pid, pidType, uid, euid, signum } = fileOwner(this.kernel, file);
    const number = pid === 0n ? 0 : pidNr(this.kernel, pid);
    return {
      id: this.nextId(),
      flags: file.f_flags,
      owner: { uid, euid, signal: signum, pidType, pid: number },
    };
  }

  refuse(pid: number, reason: string, moment?: Moment): void {
    if (moment === undefined) this.#reasons.add(pid, reason);
    else append(this.refusalsForNow, pid, { reason, moment });
  }

  note(pid: number, note: string): void {
    this.#notes.add(pid, note);
  }

  /** What was not believed of a file that these hold. */
  repairHolders(holders: readonly Holder[], repair: Repair): void {
    for (const pid of new Set(holders.filter(({ isProtected }) => isProtected).map(({ pid }) => pid))) {
      append(this.repairs, pid, repair);
    }
  }

  /** Notes for every protected holder. */
  noteHolders(holders: readonly Holder[], note: string): void {
    for (const pid of new Set(holders.filter(({ isProtected }) => isProtected).map(({ pid }) => pid))) {
      this.note(pid, note);
    }
  }

  /** Whether every protected one of some holders may lose something of a kind. */
  mayLose(holders: readonly Holder[], kind: LossKind): boolean {
    const own = holders.filter(({ isProtected }) => isProtected);
    return own.length > 0 && own.every(({ pid }) => this.allowedLosses(pid).has(kind));
  }

  /** A loss of every protected holder. */
  loseForHolders(holders: readonly Holder[], loss: Loss): void {
    for (const pid of new Set(holders.filter(({ isProtected }) => isProtected).map(({ pid }) => pid)))
      append(this.losses, pid, loss);
  }

  /** A loss of a process that comes back for its procedure alone. */
  loseUnexpectedly(pid: number, loss: UnexpectedLoss): void {
    append(this.unexpected, pid, loss);
  }

  /**
   * Processes that have to be restored together.
   * @param pids a list that may only grow: the same one is looked at once
   */
  join(pids: readonly number[], why: string): void {
    this.#edges.add(pids, why);
  }

  /** Processes that come back each at its own time, and only if the others may. @param pids as for `join` */
  depend(pids: readonly number[], why: string): void {
    this.#dependences.add(pids, why);
  }

  /** Joins the protected holders of something; throws a FileRefusal if anybody else holds it. */
  shareAmong(holders: readonly Holder[], what: string): void {
    const outsider = holders.find(({ isProtected }) => !isProtected);
    if (outsider !== undefined) {
      throw new FileRefusal(`has ${what} to ${showHolder(outsider)}, which is not protected`);
    }
    this.join(
      holders.map(({ pid }) => pid),
      what,
    );
  }

  /** Adds a file that no descriptor leads to but that a process needs (mapping, executable, directory). */
  use(pid: number, file: OpenFile): void {
    this.files.set(file.id, file);
    let used = this.#pathsInUse.get(pid);
    if (used === undefined) {
      used = new Set();
      this.#pathsInUse.set(pid, used);
    }
    used.add(file.id);
  }

  /** Ids of the files that a process uses other than by descriptors. */
  usedBy(pid: number): ReadonlySet<number> {
    return this.#pathsInUse.get(pid) ?? new Set();
  }
}

function append<T>(map: Map<number, T[]>, pid: number, one: T): void {
  const list = map.get(pid);
  if (list === undefined) map.set(pid, [one]);
  else list.push(one);
}

/** Sentences about processes, each once, in the order in which they were said. */
class Sentences {
  readonly byPid = new Map<number, string[]>();
  readonly #known = new Map<number, Set<string>>();

  add(pid: number, text: string): void {
    const known = this.#known.get(pid) ?? new Set();
    this.#known.set(pid, known);
    if (known.has(text)) return;
    known.add(text);
    append(this.byPid, pid, text);
  }
}

/** Ties between processes, each once for each reason. */
class Edges {
  readonly all: SharingEdge[] = [];
  readonly #isThere: (pid: number) => boolean;
  /** What is there, by why; and lists that were looked at, with how long they were. */
  readonly #known = new Map<
    string,
    { readonly pairs: Set<string>; readonly lists: WeakMap<object, number> }
  >();

  constructor(isThere: (pid: number) => boolean) {
    this.#isThere = isThere;
  }

  add(pids: readonly number[], why: string): void {
    const known = this.#known.get(why) ?? { pairs: new Set(), lists: new WeakMap() };
    this.#known.set(why, known);
    if (known.lists.get(pids) === pids.length) return;
    known.lists.set(pids, pids.length);
    const [first, ...others] = [...new Set(pids)].filter(this.#isThere);
    if (first === undefined) return;
    for (const other of others) {
      const pair = `${first} ${other}`;
      if (known.pairs.has(pair)) continue;
      known.pairs.add(pair);
      this.all.push({ pids: [first, other], why });
    }
  }
}
