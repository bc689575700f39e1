import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '../../model/group.ts';
import { writeCores } from './core.ts';
import type { ProcedurePlan } from './crash-procedure.ts';
import { ImageDirectory } from './image.ts';
import { WITHOUT_PROCEDURES } from './image-names.ts';
import { filterIds } from './seccomp.ts';

/**
 * Keeps beside a group's images what is needed to restore it without its procedures: the cores of the
 * processes that have one, as they were captured. The pages that differ belong to the procedures alone.
 * Nothing is kept of who comes back for its procedure alone: there is nothing that it could be restored to.
 *
 * @param group as captured, before procedures were applied
 * @param directory of the group's images
 */
export function keepWithoutProcedures(
  group: ProcessGroup,
  plans: readonly ProcedurePlan[],
  directory: string,
): void {
  const delivered = new Set(
    plans.flatMap((plan) => (plan.state === 'delivered' && plan.mayContinue ? [plan.pid] : [])),
  );
  const processes = group.processes.filter(({ pid }) => delivered.has(pid));
  if (processes.length === 0) return;
  mkdirSync(join(directory, WITHOUT_PROCEDURES), { recursive: true, mode: 0o700 });
  const images = new ImageDirectory(join(directory, WITHOUT_PROCEDURES));
  try {
    const filters = filterIds({ tree: group.processes });
    for (const process of processes) writeCores(images, process, filters);
  } finally {
    images.close();
  }
}
