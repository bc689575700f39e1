import type { Moment } from '../model/verdict.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import { FileRefusal } from './files/index.ts';
import { momentOfError } from './files/refusal.ts';

/**
 * Runs a part of the capture; an error in reading the dump becomes a reason against the process, which is of
 * the moment `whereUnreadable`.
 */
export function attempt<T>(
  refuse: (reason: string, moment: Moment | undefined) => void,
  part: () => T,
  whereUnreadable?: Moment,
): T | undefined {
  try {
    return part();
  } catch (error) {
    if (error instanceof FileRefusal) {
      refuse(error.reason, error.moment);
      return undefined;
    }
    if (!(error instanceof VmcoreError)) throw error;
    refuse(`cannot be read: ${error.message}`, momentOfError(error) ?? whereUnreadable);
    return undefined;
  }
}
