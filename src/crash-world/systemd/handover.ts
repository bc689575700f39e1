import { join } from 'node:path';
import * as z from 'zod';
import { RUN_DIRECTORY } from '../../config/paths.ts';
import { StateError } from '../../system/state-error.ts';
import { readStateFile, replaceFile } from '../../system/state-file.ts';
import { scopeLimitsSchema } from './scope-limits.ts';

/** A process that was restored: its start time in this world tells it from a later one with its number. */
const restoredProcess = z.strictObject({ pid: z.int(), startTicks: z.int(), isZombie: z.boolean() });

/** What the part of the crash world before systemd leaves to the part after it. */
export const handoverSchema = z.strictObject({
  incident: z.string(),
  /** The directory that holds the incident's. */
  incidents: z.string(),
  /** Services that take up processes. */
  units: z.array(
    z.strictObject({
      unit: z.string(),
      mainPid: z.int(),
      processes: z.array(z.strictObject({ pid: z.int(), below: z.string() })),
    }),
  ),
  /** Services whose sandboxes are made before their processes are restored. */
  sandboxes: z.array(
    z.strictObject({
      unit: z.string(),
      groups: z.array(z.strictObject({ group: z.int(), directory: z.string() })),
      /** The PID files that name its processes. */
      pidFiles: z.array(z.strictObject({ path: z.string(), pid: z.int() })),
      /** Whether the boot starts it; undefined until the system boots. */
      startsAtBoot: z.boolean().optional(),
    }),
  ),
  /** The groups that were restored, with those of their processes that were there at the end of it. */
  groups: z.array(
    z.strictObject({
      group: z.int(),
      processes: z.array(restoredProcess),
      /** Of the scope that holds what no service takes up. */
      limits: scopeLimitsSchema,
    }),
  ),
});

export type Handover = z.infer<typeof handoverSchema>;

const PATH = join(RUN_DIRECTORY, 'handover.json');

/** Writes it, whole or not at all. */
export function writeHandover(handover: Handover, path: string = PATH): void {
  replaceFile(path, JSON.stringify(handover));
}

/**
 * @throws StateError if there is none: nothing was resurrected on this boot; other errors if it is damaged
 */
export function readHandover(path: string = PATH): Handover {
  const text = readStateFile(path);
  if (text === undefined) throw new StateError(`${path} is not there: nothing was resurrected on this boot`);
  return handoverSchema.parse(JSON.parse(text));
}
