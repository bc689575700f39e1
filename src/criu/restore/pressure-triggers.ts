import { closeSync, writeSync } from 'node:fs';
import { takeDescriptor } from '../../system/descriptors.ts';
import { checked } from '../../system/libc.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';

/**
 * Sets triggers for pressure once more, through the open files that they belong to, before the processes run.
 * Throws an Error if one cannot be: a poll of its file would return at once, again and again.
 */
export function setPressureTriggers(triggers: RestorePlan['pressureTriggers']): void {
  for (const { pid, fd, text } of triggers) {
    let file = -1;
    try {
      file = checked('pidfd_getfd', takeDescriptor(pid, fd));
      // The kernel puts an end of the text over the last byte (psi_write, kernel/sched/psi.c).
      writeSync(file, `${text}\0`);
    } catch (error) {
      const which = `the trigger for pressure of fd ${fd} of process ${pid}`;
      throw new Error(`${which} cannot be set: ${messageOf(error)}`, { cause: error });
    } finally {
      if (file >= 0) closeSync(file);
    }
  }
}
