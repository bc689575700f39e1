import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { ProcessGroup } from '../model/group.ts';
import { journalSocketSchema, journalSocketsOf, restoreOptions } from './files/index.ts';

const FILE_NAME = 'restore.json';

const planSchema = z.strictObject({
  /** Processes that must be there afterwards. */
  pids: z.array(z.int()),
  /** Options of `criu restore` that the group asks for. */
  options: z.array(z.string()),
  /** Sockets to the journal, which is another one now. */
  journalSockets: z.array(journalSocketSchema),
  /** personality(2) of all processes of the group. */
  personality: z.int(),
  /** CPUs that threads may use, for those that may not use all. */
  affinities: z.array(z.strictObject({ tid: z.int(), cpus: z.array(z.int()) })),
  /** ioprio_set(2) of threads that have a priority of their own. */
  ioPriorities: z.array(z.strictObject({ tid: z.int(), priority: z.int() })),
  /** Nanoseconds, for threads with another timer slack than they started with. */
  timerSlacks: z.array(z.strictObject({ tid: z.int(), nanoseconds: z.int() })),
});

/** What restoring needs to know besides CRIU's images, and what CRIU leaves to be done. */
export type RestorePlan = z.infer<typeof planSchema>;

/** Writes the plan next to the images. */
export function writeRestorePlan(directory: string, group: ProcessGroup): void {
  const threads = group.processes.flatMap((process) => process.threads);
  const plan: RestorePlan = {
    pids: group.processes.filter(({ state }) => state !== 'zombie').map(({ pid }) => pid),
    options: restoreOptions(group.files),
    journalSockets: journalSocketsOf(group.files),
    personality: group.processes[0]?.personality ?? 0,
    affinities: threads.flatMap(({ tid, cpus }) => (cpus === undefined ? [] : [{ tid, cpus: [...cpus] }])),
    ioPriorities: threads.flatMap(({ tid, ioPriority }) =>
      ioPriority === undefined ? [] : [{ tid, priority: ioPriority }],
    ),
    timerSlacks: threads.flatMap(({ tid, timerSlackNanoseconds }) =>
      timerSlackNanoseconds === undefined ? [] : [{ tid, nanoseconds: timerSlackNanoseconds }],
    ),
  };
  writeFileSync(join(directory, FILE_NAME), `${JSON.stringify(plan, null, 2)}\n`, { mode: 0o600 });
}

/** Reads the plan; throws if the directory has none or it is not one. */
export function readRestorePlan(directory: string): RestorePlan {
  return planSchema.parse(JSON.parse(readFileSync(join(directory, FILE_NAME), 'utf8')));
}
