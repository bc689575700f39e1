import { writeCores } from './core.ts';
import type { ImageDirectory, PageSource } from './image.ts';
import { writeMm } from './mm.ts';
import { type PrivateStores, writePrivatePages } from './pagemap.ts';
import type { RootedGroup } from './rooted-group.ts';
import { filterIds } from './seccomp.ts';

/**
 * Writes `core-TID.img` of every thread, and `mm-PID.img`, `pagemap-PID.img` and the pages of every process.
 */
export function writeProcesses(group: RootedGroup, images: ImageDirectory, source: PageSource): void {
  const filters = filterIds(group);
  const stores: PrivateStores = new Map();
  for (const process of group.tree) {
    writeCores(images, process, filters);
    if (process.memory === undefined) continue;
    writeMm(images, process.pid, process.memory);
    writePrivatePages(images, source, process.pid, process.memory, stores);
  }
}
