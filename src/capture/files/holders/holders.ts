import { fdSlots } from '../../../linux/fdtable.ts';
import { fileAt } from '../../../linux/file.ts';
import type { FileKind } from '../../../linux/readers/file-kind.ts';
import type { TaskList } from '../../../linux/readers/task-list.ts';
import { taskAt } from '../../../linux/sched.ts';
import { hex, VmcoreError } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { type EndedTasks, noneEnded } from '../../file-capture.ts';
import { ClosedFiles } from './closed.ts';
import { sharedObject } from './shared-object.ts';

/** A descriptor somewhere in the system. */
export interface Holder {
  readonly pid: number;
  readonly comm: string;
  readonly fd: number;
  /** Address of the struct file. */
  readonly file: bigint;
  readonly isProtected: boolean;
}

/** `PID 123 (less)`. */
export function showHolder({ pid, comm }: Holder): string {
  return `PID ${pid} (${comm})`;
}

/** Who holds what in the whole system: every fd table is read once. */
export class SystemFiles {
  /** By the address of the struct file. */
  readonly byFile = new Map<bigint, Holder[]>();
  /** By the address of what two files can share: pipe_inode_info, sock, tty_struct. */
  readonly byObject = new Map<bigint, Holder[]>();
  readonly #objects = new Map<FileKind, Set<bigint>>();
  /**
   * Why there may be holders that are not known: processes, tables and files that cannot be read. Empty in a
   * sound kernel. What they share with others is then told by counts: see {@link unknownHolders}.
   */
  readonly unreadable: string[] = [];
  readonly #tables = new Set<bigint>();
  readonly #closed: ClosedFiles;

  constructor(
    kernel: Kernel,
    protectedPids: ReadonlySet<number>,
    list: TaskList,
    ended: EndedTasks = noneEnded,
  ) {
    if (!list.isComplete) this.unreadable.push(...list.damage);
    for (const { pid, problem } of list.lost) this.unreadable.push(`process ${pid}: ${problem}`);
    for (const address of list.tasks) {
      if (!ended.leaders.has(address)) this.#addTask(kernel, address, protectedPids);
    }
    this.#closed = new ClosedFiles(kernel, ended.threads, (table) => this.#tables.has(table));
  }

  #addTask(kernel: Kernel, address: bigint, protectedPids: ReadonlySet<number>): void {
    let who = `the task at ${hex(address)}`;
    const attempt = (step: () => void) => {
      try {
        step();
      } catch (error) {
        if (!(error instanceof VmcoreError)) throw error;
        this.unreadable.push(`the files of ${who}: ${error.message}`);
      }
    };
    attempt(() => {
      const { pid, comm, files } = taskAt(kernel, address);
      if (files === 0n) return;
      this.#tables.add(files);
      who = `PID ${pid} (${comm})`;
      for (const { fd, file } of fdSlots(kernel, files)) {
        const holder = { pid, comm, fd, file, isProtected: protectedPids.has(pid) };
        if (file !== 0n) attempt(() => this.#add(kernel, holder));
      }
    });
  }

  /**
   * Whether anybody may hold something besides those that were found: only if somebody's files cannot be
   * read, and then if the kernel counts more holders than were found.
   *
   * @returns a sentence for a refusal, or undefined
   */
  unknownHolders(counted: number, found: number): string | undefined {
    if (this.unreadable.length === 0 || counted <= found) return undefined;
    const more = this.unreadable.length > 1 ? ` (and ${this.unreadable.length - 1} more)` : '';
    return `${counted} hold it, of whom ${found} are known: ${this.unreadable[0]}${more}`;
  }

  /** Holders of a struct file. */
  holdersOfFile(file: bigint): readonly Holder[] {
    return this.byFile.get(file) ?? [];
  }

  /** Holders of any file on a pipe, a socket or a terminal, by its address. */
  holdersOfObject(object: bigint): readonly Holder[] {
    return this.byObject.get(object) ?? [];
  }

  /** Descriptors that led to a file, in processes that have ended: `f_count` still counts them. */
  closedDescriptors(file: bigint): number {
    return this.#closed.descriptors(file);
  }

  /**
   * Files on a pipe, a socket or a terminal that nobody holds since a process has ended: the object still
   * counts them.
   */
  closedFiles(object: bigint): number {
    return this.#closed.on(object).filter((file) => !this.byFile.has(file)).length;
  }

  /** Whether processes that have ended were closing files that are on no list any more. */
  get mayLackClosed(): boolean {
    return this.#closed.mayLackSome;
  }

  /** Whether a process that has ended was the last to hold an object. */
  isClosed(object: bigint): boolean {
    return this.closedFiles(object) > 0 && this.holdersOfObject(object).length === 0;
  }

  /** Addresses of all objects behind files of some kinds that a process holds: of `socket` the socks. */
  objectsOf(...kinds: readonly FileKind[]): ReadonlySet<bigint> {
    return new Set(kinds.flatMap((kind) => [...(this.#objects.get(kind) ?? [])]));
  }

  #add(kernel: Kernel, holder: Holder): void {
    const known = this.byFile.get(holder.file);
    if (known !== undefined) known.push(holder);
    else this.byFile.set(holder.file, [holder]);
    const file = fileAt(kernel, holder.file);
    const { kind, object } = file === undefined ? {} : sharedObject(kernel, file);
    if (kind === undefined || object === undefined) return;
    this.#objects.set(kind, (this.#objects.get(kind) ?? new Set()).add(object));
    const holders = this.byObject.get(object);
    if (holders !== undefined) holders.push(holder);
    else this.byObject.set(object, [holder]);
  }
}
