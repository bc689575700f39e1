import { posixQueues } from '../linux/mqueue.ts';
import type { GroupSelection } from './files/kind.ts';
import { sharedMemoryOf } from './files/memory/shared-memory.ts';
import { lostIpc } from './ipc/ipc.ts';
import { messageQueues, messageQueuesOfGroup } from './ipc/message-queues.ts';
import { segmentsOf, sharedSegments } from './ipc/segments.ts';
import { semaphores, semaphoresOfGroup } from './ipc/semaphores.ts';
import type { PartMakers } from './parts.ts';
import type { SharedParts, SharedResource } from './shared-resource.ts';

/**
 * All kinds of resources that are looked for by themselves. A further kind is a file of its own, and a line
 * here.
 */
export const sharedResources: readonly SharedResource[] = [
  semaphores,
  messageQueues,
  sharedSegments,
  lostIpc(posixQueues),
];

/**
 * What a group has of those, and of the memory that its processes map. Each may throw a FileRefusal: the
 * group cannot come back as it was.
 */
export const sharedParts: PartMakers<SharedParts, GroupSelection> = {
  sharedMemory: sharedMemoryOf,
  segments: segmentsOf,
  semaphores: semaphoresOfGroup,
  messageQueues: messageQueuesOfGroup,
};
