import type { ProcessGroup } from '../../model/group.ts';
import { captureCrashProcedures, type RecordSource } from '../crash-procedure.ts';

/**
 * Processes of a group with a crash procedure that would be called. Nobody calls one in a sandbox: its
 * process comes back while the system boots, when procedures have been waited for.
 *
 * @returns their reasons by pid; none for a group in no sandbox
 */
export function procedureReasons(kernel: RecordSource, group: ProcessGroup): ReadonlyMap<number, string> {
  if (group.sandbox === undefined) return new Map();
  const called = captureCrashProcedures(kernel, group).filter(({ valid }) => valid);
  return new Map(called.map(({ pid }) => [pid, 'has a crash procedure, which is not called in a sandbox']));
}
