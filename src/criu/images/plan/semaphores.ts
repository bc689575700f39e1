import * as z from 'zod';
import { ipcObject } from './ipc-object.ts';

/**
 * The sets of System V semaphores that are made before `criu restore`; lies next to CRIU's images, if there
 * are any.
 */
export const SEMAPHORES = 'semaphores.json';

const semaphoreSet = ipcObject.extend({
  /** `lastPid`: the process of the group that changed it last, if one did that is there again. */
  semaphores: z.array(z.strictObject({ value: z.int(), lastPid: z.int().optional() })),
  /** There was a semop(2) on it. */
  isUsed: z.boolean(),
  /** What processes of the group add to it when they end. */
  undos: z.array(z.strictObject({ pid: z.int(), semaphore: z.int(), adjustment: z.int() })),
});

export const semaphoresSchema = z.array(semaphoreSet);

export type SemaphoreSetPlan = z.infer<typeof semaphoreSet>;
