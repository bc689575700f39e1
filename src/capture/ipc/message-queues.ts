import {
  type MsgQueue,
  messageQueueObject,
  messageSleepers,
  messagesOf,
  messageQueues as queuesOf,
} from '../../linux/msg.ts';
import type { MessageQueue } from '../../model/message-queue.ts';
import type { CaptureContext } from '../files/context.ts';
import type { GroupSelection } from '../files/kind.ts';
import { FileRefusal } from '../files/refusal.ts';
import { KeptObjects, keptIpc, keptParts } from './kept-ipc.ts';

class MessageQueues extends KeptObjects<MessageQueue> {}

function captureQueue(
  context: CaptureContext,
  queue: MsgQueue,
): { part: MessageQueue; notes: readonly string[] } {
  const { kernel } = context;
  const { id, key, uid, gid, cuid, cgid, mode } = queue;
  if (queue.lock !== 0) throw new FileRefusal('was being changed');
  const { receivers, senders } = messageSleepers(kernel, queue);
  const messages = messagesOf(kernel, queue);
  const wrong = messages.find(({ type }) => type < 1n);
  if (wrong !== undefined) throw new FileRefusal(`is damaged: it has a message of type ${wrong.type}`);
  const part: MessageQueue = {
    ...{ id, key: key >>> 0, uid, gid, cuid, cgid, mode: mode & 0o777 },
    ...{ limitBytes: queue.q_qbytes, messages },
  };
  const what = `the System V message queue ${id}`;
  const isOrdered = receivers.length < 2 && senders.length < 2;
  const notes = [
    `${what} no longer tells who sent and received last, and when`,
    ...(isOrdered ? [] : [`those who wait for ${what} may get it in another order`]),
  ];
  return { part, notes };
}

/**
 * System V message queues of the initial IPC namespace: one that protected processes have sent to or received
 * from last, or wait for, comes back with them.
 */
export const messageQueues = keptIpc<MsgQueue, MessageQueue>({
  State: MessageQueues,
  find: queuesOf,
  object: messageQueueObject,
  capture: captureQueue,
});

/** The queues that processes of a group use. */
export function messageQueuesOfGroup(group: GroupSelection): MessageQueue[] {
  return keptParts(MessageQueues, group);
}
