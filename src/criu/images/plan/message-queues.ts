import * as z from 'zod';
import { ipcObject } from './ipc-object.ts';

/**
 * The System V message queues that are made before `criu restore`; lies next to CRIU's images, if there are
 * any.
 */
export const MESSAGE_QUEUES = 'message-queues.json';
/** The texts of their messages, one after the other. */
export const MESSAGES = 'messages.raw';

const messageQueue = ipcObject.extend({
  limitBytes: z.int(),
  /** Where the text of the first message is in their file. */
  textOffset: z.int(),
  /** In their order; types may not fit into JSON's numbers. */
  messages: z.array(z.strictObject({ type: z.string().regex(/^[1-9][0-9]*$/), bytes: z.int() })),
});

export const messageQueuesSchema = z.array(messageQueue);

export type MessageQueuePlan = z.infer<typeof messageQueue>;
