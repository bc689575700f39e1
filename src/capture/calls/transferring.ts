import type { UserMemory } from '../../linux/readers/user-memory.ts';
import type { Task } from '../../linux/sched.ts';

/** A thread in a system call, and what tells how far that has come. */
export interface Transferring {
  readonly task: Task;
  readonly user: Pick<UserMemory, 'read'>;
  /** The CPU that was executing the thread. */
  readonly cpu: number | undefined;
  readonly panicked: boolean;
}
