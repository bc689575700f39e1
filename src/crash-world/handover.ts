import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { RUN_DIRECTORY } from '../config/paths.ts';
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

export function writeHandover(handover: Handover): void {
  writeFileSync(PATH, JSON.stringify(handover), { mode: 0o600 });
}

/** @throws if there is none: nothing was resurrected on this boot */
export function readHandover(): Handover {
  return handoverSchema.parse(JSON.parse(readFileSync(PATH, 'utf8')));
}
