import * as z from 'zod';
import { ipcObject } from './ipc-object.ts';

/**
 * The System V shared memory segments that are made before `criu restore`; lies next to CRIU's images, if
 * there are any.
 */
export const SEGMENTS = 'segments.json';
/** Their content, one after the other. */
export const SEGMENTS_CONTENT = 'segments.raw';

const segment = ipcObject.extend({
  sizeBytes: z.int(),
  isRemoved: z.boolean(),
  isLocked: z.boolean(),
  isNotReserved: z.boolean(),
  /** How often the group's processes have it attached: with this the segment is whole. */
  attachments: z.int(),
  /**
   * The chunks lie one after the other in the content file, from `contentOffset` on; `offset` is where they
   * belong.
   */
  contentOffset: z.int(),
  chunks: z.array(z.strictObject({ offset: z.int(), length: z.int() })),
});

export const segmentsSchema = z.array(segment);

export type SegmentPlan = z.infer<typeof segment>;
