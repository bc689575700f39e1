import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ExtendedAttribute, FileToMake, GroupFiles, TmpfsFiles } from '../../../model/file.ts';
import { contentRuns } from '../../../model/page-runs.ts';
import { type ImageDirectory, ImageFile, type PageSource } from '../image.ts';
import {
  CONTENT,
  PREPARATION,
  type Preparation,
  type PreparedAttributes,
  type PreparedChunk,
} from '../plan/preparation.ts';

function encoded(list: readonly ExtendedAttribute[]): PreparedAttributes {
  return list.map(({ name, value }) => ({ name, value: Buffer.from(value).toString('base64') }));
}

/** What of a group, or of nobody's files, is prepared. */
export type FilesToPrepare = Pick<GroupFiles, 'directoriesToMake' | 'filesToMake'> &
  Partial<Pick<GroupFiles, 'filesToCheck'> & TmpfsFiles>;

/**
 * Writes what `makeAndCheckFiles` needs: `preparation.json`, and the content of every file that went with the old
 * kernel. Throws an ImageWriteError.
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
      const contentOffset = image.sizeBytes;
      const { sizeBytes } = file.identity;
      image.runs(source, contentRuns(runs, sizeBytes));
      return {
        ...file,
        attributes: encoded(own),
        contentOffset,
        chunks: chunksOf(contentRuns(runs, sizeBytes)),
      };
    });
  } finally {
    image.close();
  }
}

/** What is adjacent in the file is adjacent in the content, wherever it was in memory. */
function chunksOf(runs: Iterable<PreparedChunk>): PreparedChunk[] {
  const chunks: { offset: number; length: number }[] = [];
  for (const { offset, length } of runs) {
    const last = chunks.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else chunks.push({ offset, length });
  }
  return chunks;
}
