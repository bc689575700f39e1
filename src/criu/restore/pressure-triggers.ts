import { closeSync, writeSync } from 'node:fs';
import { seek, takeDescriptor } from '../../system/descriptors.ts';
import { checked } from '../../system/libc.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';

/** lseek(2). */
const SEEK_SET = 0;
const SEEK_CUR = 1;

/**
 * Sets triggers for pressure once more, through the open files that they belong to, before the processes
 * run. They leave the offsets of the files as they are. Throws an Error if one cannot be: a poll of its
 * file would return at once, again and again.
 */
export function setPressureTriggers(triggers: RestorePlan['pressureTriggers']): void {
  for (const { pid, fd, text } of triggers) {
    let file = -1;
    try {
      file = checked('pidfd_getfd', takeDescriptor(pid, fd));
      const before = checked('lseek', seek(file, 0, SEEK_CUR));
      // The kernel puts an end of the text over the last byte (psi_write, kernel/sched/psi.c).
      writeSync(file, `${text}\0`);
      // That of a cgroup's file has moved (kernfs_fop_write_iter, fs/kernfs/file.c), for all who share it.
      checked('lseek', seek(file, before, SEEK_SET));
    } catch (error) {
      const which = `the trigger for pressure of fd ${fd} of process ${pid}`;
      throw new Error(`${which} cannot be set: ${messageOf(error)}`, { cause: error });
    } finally {
      if (file >= 0) closeSync(file);
    }
  }
}
