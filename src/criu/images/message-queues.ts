import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '../../model/group.ts';
import type { ImageDirectory, PageSource } from './image.ts';
import { MESSAGE_QUEUES, MESSAGES, type MessageQueuePlan } from './plan/message-queues.ts';

/**
 * Writes `message-queues.json`, and the texts of the messages, of a group that has any. Throws an
 * ImageWriteError.
 */
export function writeMessageQueues(
  { messageQueues: queues }: Pick<ProcessGroup, 'messageQueues'>,
  images: ImageDirectory,
  source: PageSource,
): void {
  if (queues.length === 0) return;
  const image = images.pages(MESSAGES);
  const plans = queues.map(({ messages, ...queue }): MessageQueuePlan => {
    const textOffset = image.sizeBytes;
    image.runs(
      source,
      messages.flatMap(({ text }) => text),
    );
    return {
      ...queue,
      textOffset,
      messages: messages.map(({ type, bytes }) => ({ type: String(type), bytes })),
    };
  });
  writeFileSync(join(images.path, MESSAGE_QUEUES), `${JSON.stringify(plans)}\n`, { flag: 'wx', mode: 0o600 });
}
