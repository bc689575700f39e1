import { mmStruct } from '../../linux/mm-types.ts';
import { type Mapping, mappingsOf } from '../../linux/readers/i-mmap.ts';
import type { TaskList } from '../../linux/readers/task-list.ts';
import { taskAt } from '../../linux/sched.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { FileTask } from '../file-capture.ts';
import { FileRefusal } from './refusal.ts';

/** A process by its address space. */
interface User {
  readonly pid: number;
  readonly comm: string;
}

/** Who maps memory that processes share. */
export class Mappers {
  readonly #kernel: Kernel;
  readonly #tasks: ReadonlyMap<number, FileTask>;
  readonly #list: TaskList;
  #users: ReadonlyMap<bigint, User> | undefined;

  constructor(kernel: Kernel, tasks: ReadonlyMap<number, FileTask>, list: TaskList) {
    this.#kernel = kernel;
    this.#tasks = tasks;
    this.#list = list;
  }

  /**
   * The protected processes that share the memory of an inode by mapping it. Throws a FileRefusal if one that
   * is not protected does, or if `pid`, which maps it, is not known to: others may be missing as well. Throws
   * a VmcoreError if that cannot be read.
   *
   * @param mapping the inode's `i_mapping`
   * @param kinds which mappings share it: all but private ones, or those that can write
   */
  sharing(mapping: bigint, kinds: 'shared' | 'writable', pid?: number): readonly number[] {
    const mappings = mappingsOf(this.#kernel, mapping).filter(
      ({ isShared, isWritable }) => isWritable || (kinds === 'shared' && isShared),
    );
    const spaces = new Set(mappings.map(({ mm }: Mapping) => mm));
    const pids = [...spaces].flatMap((mm) => this.#pidOf(mm) ?? []);
    if (pid !== undefined && !pids.includes(pid)) {
      throw new FileRefusal('has shared memory that the kernel does not know it to map');
    }
    return pids;
  }

  #pidOf(mm: bigint): number | undefined {
    const user = this.users.get(mm);
    if (user !== undefined && this.#tasks.has(user.pid)) return user.pid;
    if (user !== undefined) {
      throw new FileRefusal(
        `has memory that PID ${user.pid} (${user.comm}) maps as well, which is not protected`,
      );
    }
    // The areas of a process that has ended go one by one after its last thread has let go of them.
    if (this.#kernel.bind(mmStruct).at(mm).mm_users === 0) return undefined;
    throw new FileRefusal('has memory that a process maps as well of which nothing is known');
  }

  /** Processes by their mm_struct, as far as they can be read. */
  get users(): ReadonlyMap<bigint, User> {
    this.#users ??= new Map(
      this.#list.tasks.flatMap((address) => {
        const user = readable(() => {
          const { mm, tgid: pid, comm } = taskAt(this.#kernel, address);
          return [mm, { pid, comm }] as const;
        });
        return user === undefined || user[0] === 0n ? [] : [user];
      }),
    );
    return this.#users;
  }
}
