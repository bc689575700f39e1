import type { Kernel } from '../vmcore/kernel.ts';
import { openKernel } from '../vmcore/open.ts';
import { UsageError } from './arguments.ts';

/**
 * Opens a dump out of which processes are to be taken. Throws a UsageError for the running kernel: what was
 * read of a process that goes on would be of no one moment.
 */
export function openDump(file: string): Kernel {
  const kernel = openKernel(file);
  if (!kernel.isAlive) return kernel;
  kernel.close();
  throw new UsageError(
    `${file} is the running kernel, and its processes change while they are read: extract takes dumps only ` +
      '(otherworld check says what would become of a process, gcore(1) makes a core)',
  );
}
