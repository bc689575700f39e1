import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GroupFiles } from '../../../model/file.ts';
import { writeContent } from '../content.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import { DELETED_CONTENT, DELETED_FILES, type DeletedFilePlan } from '../plan/deleted-files.ts';
import { writeContentOnDisk } from './path.ts';

/**
 * Writes `deleted-files.json`, and the content, of a group with deleted files that CRIU does not make. Throws
 * an ImageWriteError.
 */
export function writeDeletedFiles(
  { ghosts }: Pick<GroupFiles, 'ghosts'>,
  images: ImageDirectory,
  source: PageSource,
): void {
  if (ghosts.every(({ ownMake }) => ownMake === undefined)) return;
  const image = images.pages(DELETED_CONTENT);
  const plans = ghosts.flatMap((ghost): DeletedFilePlan[] => {
    const { id, ownMake, runs, onDisk, accessedMicroseconds, modifiedMicroseconds } = ghost;
    if (ownMake === undefined) return [];
    const { contentOffset, chunks } = writeContent(image, source, runs, ownMake.identity.sizeBytes);
    if (onDisk !== undefined) writeContentOnDisk(image, onDisk, (piece) => chunks.push({ ...piece }));
    return [{ id, ...ownMake, accessedMicroseconds, modifiedMicroseconds, contentOffset, chunks }];
  });
  writeFileSync(join(images.path, DELETED_FILES), `${JSON.stringify(plans)}\n`, { flag: 'wx', mode: 0o600 });
}
