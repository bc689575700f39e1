import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { RUN_DIRECTORY } from '../config/paths.ts';

const place = z.strictObject({ pid: z.int(), cgroup: z.string() });

/** What the part of the crash world before systemd leaves to the part after it. */
export const handoverSchema = z.strictObject({
  incident: z.string(),
  /** The directory that holds the incident's. */
  incidents: z.string(),
  adoptions: z.array(
    z.discriminatedUnion('kind', [
      z.strictObject({
        kind: z.literal('unit'),
        unit: z.string(),
        mainPid: z.int(),
        processes: z.array(place),
      }),
      z.strictObject({ kind: z.literal('scope'), unit: z.string(), processes: z.array(place) }),
    ]),
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
