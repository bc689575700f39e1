import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '../../model/group.ts';
import type { ImageDirectory } from './image.ts';
import { SEMAPHORES, type SemaphoreSetPlan } from './plan/semaphores.ts';

/** Writes `semaphores.json` of a group that has any. */
export function writeSemaphores(
  { semaphores: sets, processes }: Pick<ProcessGroup, 'semaphores' | 'processes'>,
  images: ImageDirectory,
): void {
  if (sets.length === 0) return;
  // A zombie changes nothing any more.
  const alive = new Set(processes.filter(({ state }) => state !== 'zombie').map(({ pid }) => pid));
  const plans = sets.map(
    ({ semaphores, undos, ...set }): SemaphoreSetPlan => ({
      ...set,
      semaphores: semaphores.map(({ value, lastPid }) =>
        lastPid === undefined || !alive.has(lastPid) ? { value } : { value, lastPid },
      ),
      undos: [...undos],
    }),
  );
  writeFileSync(join(images.path, SEMAPHORES), `${JSON.stringify(plans)}\n`, { flag: 'wx', mode: 0o600 });
}
