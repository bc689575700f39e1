import * as z from 'zod';
import { fileIdentity } from './preparation.ts';

/**
 * The deleted files that CRIU is handed, because others than root can write to where they were; lies next to
 * CRIU's images, if there are any.
 */
export const DELETED_FILES = 'deleted-files.json';
/** Their content, one after the other. */
export const DELETED_CONTENT = 'deleted-files.raw';

const deletedFile = z.strictObject({
  /** Of the ghost: see {@link handedInAs}. */
  id: z.int(),
  /** Where it was, before it was deleted. */
  path: z.string().startsWith('/'),
  identity: fileIdentity,
  /** The directory that it was in. */
  directory: fileIdentity,
  accessedMicroseconds: z.number(),
  modifiedMicroseconds: z.number(),
  /**
   * The chunks lie one after the other in the content file, from `contentOffset` on; `offset` is where they
   * belong.
   */
  contentOffset: z.int(),
  chunks: z.array(z.strictObject({ offset: z.int(), length: z.int() })),
});

export const deletedFilesSchema = z.array(deletedFile);

export type DeletedFilePlan = z.infer<typeof deletedFile>;

/**
 * What CRIU's images, and its option --inherit-fd, call a deleted file. With the slash it is looked for among
 * the descriptors that files are opened through, each anew with its own flags and position (`ext` in
 * open_path(), criu/files-reg.c), and not among those that processes get as they are.
 */
export function handedInAs(ghostId: number): string {
  return `/deleted/${ghostId}`;
}
