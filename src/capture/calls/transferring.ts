import type { UserMemory } from '../../linux/readers/user-memory.ts';
import type { Task } from '../../linux/sched.ts';

/** A thread in a call of the transfer class. */
export interface Transferring {
  readonly task: Task;
  readonly user: Pick<UserMemory, 'read'>;
  /** The CPU that was executing the thread. */
  readonly cpu: number | undefined;
  readonly panicked: boolean;
}
