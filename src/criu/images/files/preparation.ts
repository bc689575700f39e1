import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExtendedAttribute, FileToMake, GroupFiles, OpenFile, TmpfsFiles } from '../../../model/file.ts';
import { writeContent } from '../content.ts';
import { type ImageDirectory, ImageFile, type PageSource } from '../image.ts';
import { CONTENT, PREPARATION, type Preparation, type PreparedAttributes } from '../plan/preparation.ts';

function encoded(list: readonly ExtendedAttribute[]): PreparedAttributes {
  return list.map(({ name, value }) => ({ name, value: Buffer.from(value).toString('base64') }));
}

/** What of a group, or of nobody's files, is prepared. */
export type FilesToPrepare = Pick<GroupFiles, 'directoriesToMake' | 'filesToMake'> &
  Partial<Pick<GroupFiles, 'filesToCheck' | 'files'> & TmpfsFiles>;

function socketNamesOf(files: readonly OpenFile[]): Preparation['socketNames'] {
  return files.flatMap((file) => {
    if (file.type !== 'unix' || file.leadsTo === undefined) return [];
    return [{ name: Buffer.from(file.name).toString('utf8'), path: file.leadsTo }];
  });
}

/**
 * Writes what `makeAndCheckFiles` needs: `preparation.json`, and the content of every file that went with the
 * old kernel. Throws an ImageWriteError.
 */
export function writePreparation(files: FilesToPrepare, images: ImageDirectory, source: PageSource): void {
  const preparation: Preparation = {
    version: 2,
    directories: files.directoriesToMake.map((directory) => ({
      ...directory,
      attributes: encoded(directory.attributes),
    })),
    files: writeContents(files.filesToMake, join(images.path, CONTENT), source),
    symlinks: [...(files.symlinksToMake ?? [])],
    names: [...(files.namesToMake ?? [])],
    checks: [...(files.filesToCheck ?? [])],
    socketNames: socketNamesOf(files.files ?? []),
  };
  writeFileSync(join(images.path, PREPARATION), `${JSON.stringify(preparation)}\n`, {
    flag: 'wx',
    mode: 0o600,
  });
}

function writeContents(files: readonly FileToMake[], path: string, source: PageSource): Preparation['files'] {
  if (files.length === 0) return [];
  const image = new ImageFile(path, []);
  try {
    return files.map(({ runs, attributes: own, ...file }) => {
      const content = writeContent(image, source, runs, file.identity.sizeBytes);
      return { ...file, attributes: encoded(own), ...content };
    });
  } finally {
    image.close();
  }
}
