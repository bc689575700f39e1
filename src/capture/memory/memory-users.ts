import type { TaskList } from '../../linux/readers/task-list.ts';
import { taskAt } from '../../linux/sched.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/** Who uses which address space. */
export interface MemoryUsers {
  /** Pids of all processes that use an address space, by its address. */
  readonly byMm: ReadonlyMap<bigint, readonly number[]>;
  /** Whether all processes of the system could be asked. */
  readonly isComplete: boolean;
}

/** Who uses which address space, as far as processes can be read. */
export function memoryUsers(kernel: Kernel, list: TaskList): MemoryUsers {
  const byMm = new Map<bigint, number[]>();
  let isComplete = list.isComplete && list.lost.length === 0;
  for (const address of list.tasks) {
    try {
      const { mm, tgid } = taskAt(kernel, address);
      const known = byMm.get(mm);
      if (known !== undefined) known.push(tgid);
      else if (mm !== 0n) byMm.set(mm, [tgid]);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      isComplete = false;
    }
  }
  return { byMm, isComplete };
}
