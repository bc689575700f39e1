import type { ProcessGroup } from '../../model/group.ts';
import type { SharedMemory } from '../../model/memory.ts';
import type { Process } from '../../model/process.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { ImageDirectory, PageSource } from './image.ts';
import { writeSharedPages } from './pagemap.ts';

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
}

/** How far into a shared memory the group's mappings reach, in bytes. */
function mappedExtent(processes: readonly Process[], shmid: number): number {
  const ends = processes
    .flatMap(({ memory }) => memory?.vmas ?? [])
    .filter((vma) => vma.shmid === shmid)
    .map((vma) => vma.offsetBytes + vma.end - vma.start);
  return wholePages(Math.max(0, ...ends));
}

/** CRIU refuses pages of anonymous shared memory beyond what anybody maps. A memfd has its size. */
function storedExtent({ processes }: ProcessGroup, { shmid, origin, sizeBytes }: SharedMemory): number {
  return origin === 'memfd' ? wholePages(sizeBytes) : mappedExtent(processes, shmid);
}

/** Writes `pagemap-shmem-SHMID.img` and its page store for every shared memory of a group. */
export function writeSharedMemory(group: ProcessGroup, images: ImageDirectory, source: PageSource): void {
  for (const memory of group.sharedMemory)
    writeSharedPages(images, source, memory, storedExtent(group, memory));
}
