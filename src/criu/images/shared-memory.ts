import type { ProcessGroup } from '../../model/group.ts';
import type { SharedMemory } from '../../model/memory.ts';
import type { Process } from '../../model/process.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { ImageDirectory, PageSource } from './image.ts';
import { writeSharedPages } from './pagemap.ts';

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
}

/** How far into each shared memory, by its number, the group's mappings reach, in bytes. */
function mappedExtents(processes: readonly Process[]): ReadonlyMap<number, number> {
  const extents = new Map<number, number>();
  for (const { memory } of processes)
    for (const { shmid, offsetBytes, start, end } of memory?.vmas ?? []) {
      if (shmid === undefined) continue;
      extents.set(shmid, Math.max(extents.get(shmid) ?? 0, offsetBytes + end - start));
    }
  return extents;
}

/** CRIU refuses pages of anonymous shared memory beyond what anybody maps. A memfd has its size. */
function storedExtent(
  { shmid, origin, sizeBytes }: SharedMemory,
  mapped: ReadonlyMap<number, number>,
): number {
  return wholePages(origin === 'memfd' ? sizeBytes : (mapped.get(shmid) ?? 0));
}

/** Writes `pagemap-shmem-SHMID.img` and its page store for every shared memory of a group. */
export function writeSharedMemory(group: ProcessGroup, images: ImageDirectory, source: PageSource): void {
  const mapped = mappedExtents(group.processes);
  for (const memory of group.sharedMemory)
    writeSharedPages(images, source, memory, storedExtent(memory, mapped));
}
