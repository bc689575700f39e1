import * as z from 'zod';

/** What every System V object has in its plan; see `IpcObject` of the model. */
export const ipcObject = z.strictObject({
  id: z.int(),
  key: z.int(),
  uid: z.int(),
  gid: z.int(),
  cuid: z.int(),
  cgid: z.int(),
  mode: z.int(),
});
