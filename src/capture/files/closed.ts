import { fdSlots } from '../../linux/fdtable.ts';
import { fileStruct } from '../../linux/fs.ts';
import { taskAt } from '../../linux/sched.ts';
import { filesToClose } from '../../linux/task-work.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
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

  /**
   * @param threads addresses of all task_structs of those processes
   * @param isHeld whether a process that lives has a table of descriptors (`files_struct`) as well
   */
  constructor(kernel: Kernel, threads: Iterable<bigint>, isHeld: (table: bigint) => boolean) {
    const tables = new Set<bigint>();
    for (const thread of threads) {
      const table = readable(() => taskAt(kernel, thread).files) ?? 0n;
      if (table !== 0n && !isHeld(table)) tables.add(table);
      for (const file of readable(() => filesToClose(kernel, thread)) ?? []) this.#add(kernel, file);
    }
    for (const table of tables) {
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

  /** The files on a pipe, a socket or a terminal. */
  on(object: bigint): ReadonlySet<bigint> {
    return this.#byObject.get(object) ?? new Set();
  }
}
