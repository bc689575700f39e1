import { fdSlots, filesStruct } from '../../../linux/fdtable.ts';
import { fileStruct } from '../../../linux/fs.ts';
import { taskAt } from '../../../linux/sched.ts';
import { filesToClose } from '../../../linux/task-work.ts';
import { readable } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { sharedObject } from './shared-object.ts';

/**
 * What processes had open that have ended: exit_files() takes their tables away, exit_task_work() closes the
 * files. The kernel still counts these; nobody holds them. What cannot be read is not there: then more are
 * counted than are known, and who shares them is refused.
 */
export class ClosedFiles {
  /** Descriptors by the address of the struct file. */
  readonly #descriptors = new Map<bigint, number>();
  readonly #byObject = new Map<bigint, Set<bigint>>();
  readonly #kernel: Kernel;
  /** A process has let go of its table, and the files that it had are on no list until they are closed. */
  readonly mayLackSome: boolean;

  /**
   * @param threads addresses of all task_structs of those processes
   * @param isHeld whether a process that lives has a table of descriptors (`files_struct`) as well
   */
  constructor(kernel: Kernel, threads: Iterable<bigint>, isHeld: (table: bigint) => boolean) {
    this.#kernel = kernel;
    const users = new Map<bigint, number>();
    let mayLackSome = false;
    for (const thread of threads) {
      const table = readable(() => taskAt(kernel, thread).files) ?? 0n;
      if (table === 0n) mayLackSome = true;
      else users.set(table, (users.get(table) ?? 0) + 1);
      for (const file of readable(() => filesToClose(kernel, thread)) ?? []) this.#add(kernel, file);
    }
    this.mayLackSome = mayLackSome;
    for (const [table, count] of users) {
      // Somebody else has the table as well, and keeps it.
      const isShared = (readable(() => kernel.bind(filesStruct).at(table).count) ?? count + 1) > count;
      if (isShared || isHeld(table)) continue;
      for (const { file } of readable(() => fdSlots(kernel, table)) ?? []) {
        if (file === 0n) continue;
        this.#descriptors.set(file, this.descriptors(file) + 1);
        this.#add(kernel, file);
      }
    }
  }

  #add(kernel: Kernel, address: bigint): void {
    const object = readable(() => sharedObject(kernel, kernel.bind(fileStruct).at(address)).object);
    if (object !== undefined)
      this.#byObject.set(object, (this.#byObject.get(object) ?? new Set()).add(address));
  }

  /** Descriptors that led to a file: `f_count` still counts them. */
  descriptors(file: bigint): number {
    return this.#descriptors.get(file) ?? 0;
  }

  /**
   * The files on a pipe, a socket or a terminal that are closed with those descriptors: nothing else counts
   * as their holder, as a message on its way does (SCM_RIGHTS).
   */
  on(object: bigint): readonly bigint[] {
    return [...(this.#byObject.get(object) ?? [])].filter((file) => {
      const counted = readable(() => this.#kernel.bind(fileStruct).at(file).f_count);
      return counted !== undefined && counted <= BigInt(this.descriptors(file));
    });
  }
}
