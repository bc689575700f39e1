import { writeClocks } from './clocks.ts';
import { writeDeletedFiles } from './files/deleted.ts';
import { writeFileImages } from './files/index.ts';
import { writeLocks } from './files/locks.ts';
import { writePreparation } from './files/preparation.ts';
import type { ImageDirectory, PageSource } from './image.ts';
import { writeMessageQueues } from './message-queues.ts';
import { writeRestorePlan } from './plan/write-plan.ts';
import { writeProcesses } from './process.ts';
import { type RootedGroup, writeNoDescriptors } from './rooted-group.ts';
import { writeSeccomp } from './seccomp.ts';
import { writeSegments } from './segments.ts';
import { writeSemaphores } from './semaphores.ts';
import { writeSharedMemory } from './shared-memory.ts';
import { writeInventory, writeTree } from './tree.ts';

/**
 * Writes the images of one kind of resource that processes of a group share, or nothing if they have none of
 * it.
 */
export type GroupWriter = (group: RootedGroup, images: ImageDirectory, source: PageSource) => void;

/** Everything that is written for a group. A further resource is a file with its writer, and a line here. */
export const groupWriters: readonly GroupWriter[] = [
  (_group, images) => writeInventory(images),
  writeTree,
  writeProcesses,
  writeSeccomp,
  writeSharedMemory,
  writeSegments,
  writeSemaphores,
  writeMessageQueues,
  writeClocks,
  ({ files }, images, source) => writeFileImages(files, images, source),
  ({ files }, images, source) => writeDeletedFiles(files, images, source),
  writeNoDescriptors,
  writeLocks,
  ({ files }, images, source) => writePreparation(files, images, source),
  (group, images) => writeRestorePlan(images.path, group, group.tree),
];
