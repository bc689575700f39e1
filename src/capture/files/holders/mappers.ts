import { mmStruct } from '../../../linux/mm-types.ts';
import { type Mapping, mappingsOf } from '../../../linux/readers/i-mmap.ts';
import type { TaskList } from '../../../linux/readers/task-list.ts';
import { taskAt } from '../../../linux/sched.ts';
import { readable } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { type EndedTasks, type FileTask, noneEnded } from '../../file-capture.ts';
import { FileRefusal } from '../refusal.ts';

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
  readonly #ended: EndedTasks;
  readonly #sharing = new Map<string, readonly number[]>();
  #users: ReadonlyMap<bigint, readonly User[]> | undefined;

  constructor(
    kernel: Kernel,
    tasks: ReadonlyMap<number, FileTask>,
    list: TaskList,
    ended: EndedTasks = noneEnded,
  ) {
    this.#kernel = kernel;
    this.#tasks = tasks;
    this.#list = list;
    this.#ended = ended;
  }

  /**
   * The protected processes that share the memory of an inode by mapping it. Throws a FileRefusal if one that
   * is not protected does, or if `pid`, which maps it, is not known to: others may be missing as well. Throws
   * a VmcoreError if that cannot be read.
   *
   * The areas that map an inode are read once: a process may have thousands of them.
   *
   * @param mapping the inode's `i_mapping`
   * @param kinds which mappings share it: all but private ones, or those that can write
   * @returns the same list every time
   */
  sharing(mapping: bigint, kinds: 'shared' | 'writable', pid?: number): readonly number[] {
    const key = `${mapping} ${kinds}`;
    const pids = this.#sharing.get(key) ?? this.#readSharing(mapping, kinds);
    this.#sharing.set(key, pids);
    if (pid !== undefined && !pids.includes(pid)) {
      throw FileRefusal.damaged('has shared memory that the kernel does not know it to map');
    }
    return pids;
  }

  #readSharing(mapping: bigint, kinds: 'shared' | 'writable'): readonly number[] {
    const mappings = mappingsOf(this.#kernel, mapping).filter(
      ({ isShared, isWritable }) => isWritable || (kinds === 'shared' && isShared),
    );
    const spaces = new Set(mappings.map(({ mm }: Mapping) => mm));
    return [...spaces].flatMap((mm) => this.#pidsOf(mm));
  }

  #pidsOf(mm: bigint): readonly number[] {
    const users = this.usersOf(mm);
    const stranger = users.find(({ pid }) => !this.#tasks.has(pid));
    if (stranger !== undefined) {
      throw new FileRefusal(
        `has memory that PID ${stranger.pid} (${stranger.comm}) maps as well, which is not protected`,
      );
    }
    if (users.length > 0) return users.map(({ pid }) => pid);
    if (this.#ended.spaces.has(mm)) return [];
    // The areas of a process that has ended go one by one after its last thread has let go of them.
    if (this.#kernel.bind(mmStruct).at(mm).mm_users === 0) return [];
    throw new FileRefusal('has memory that a process maps as well of which nothing is known');
  }

  /** Processes that use an address space, as far as they can be read: several in vfork. */
  usersOf(mm: bigint): readonly User[] {
    this.#users ??= this.#readUsers();
    return this.#users.get(mm) ?? [];
  }

  #readUsers(): ReadonlyMap<bigint, readonly User[]> {
    const users = new Map<bigint, User[]>();
    for (const address of this.#list.tasks) {
      if (this.#ended.leaders.has(address)) continue;
      readable(() => {
        const { mm, tgid: pid, comm } = taskAt(this.#kernel, address);
        const known = users.get(mm);
        if (known !== undefined) known.push({ pid, comm });
        else if (mm !== 0n) users.set(mm, [{ pid, comm }]);
      });
    }
    return users;
  }
}
