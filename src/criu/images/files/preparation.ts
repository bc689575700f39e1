import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { ExtendedAttribute, FileToMake, GroupFiles, MemoryFiles } from '../../../model/file.ts';
import { type ImageDirectory, ImageFile, type PageSource, readImageText } from '../image.ts';
import { contentRuns } from './path.ts';

/** What is to be made and to be checked before `criu restore`; lies next to CRIU's images, which do not know of it. */
const PREPARATION = 'preparation.json';
/** The content of the files that are to be made, one after the other. */
const CONTENT = 'made.raw';

const identity = z.object({
  fileSystem: z.string(),
  onDisk: z.boolean(),
  inode: z.number(),
  generation: z.number(),
  mode: z.number(),
  uid: z.number(),
  gid: z.number(),
  sizeBytes: z.number(),
  rdev: z.number(),
});

/** The value is in Base64. */
const attributes = z.array(z.object({ name: z.string(), value: z.base64() }));

const chunk = z.object({ offset: z.number(), length: z.number() });
type Chunk = z.infer<typeof chunk>;

const preparationSchema = z.object({
  version: z.literal(2),
  directories: z.array(
    z.object({ path: z.string(), mode: z.number(), uid: z.number(), gid: z.number(), attributes }),
  ),
  /** The chunks lie one after the other in the content file, from `contentOffset` on; `offset` is where they belong. */
  files: z.array(
    z.object({
      path: z.string(),
      identity,
      attributes,
      accessedMicroseconds: z.number(),
      modifiedMicroseconds: z.number(),
      contentOffset: z.number(),
      chunks: z.array(chunk),
    }),
  ),
  symlinks: z.array(z.object({ path: z.string(), target: z.string(), uid: z.number(), gid: z.number() })),
  names: z.array(z.object({ path: z.string(), of: z.string() })),
  checks: z.array(z.object({ path: z.string(), identity })),
});

function encoded(list: readonly ExtendedAttribute[]): z.infer<typeof attributes> {
  return list.map(({ name, value }) => ({ name, value: Buffer.from(value).toString('base64') }));
}

export type Preparation = z.infer<typeof preparationSchema>;

/** What of a group, or of nobody's files, is prepared. */
export type FilesToPrepare = Pick<GroupFiles, 'directoriesToMake' | 'filesToMake'> &
  Partial<Pick<GroupFiles, 'filesToCheck'> & MemoryFiles>;

/**
 * Writes what `prepareFiles` needs: `preparation.json`, and the content of every file that went with the old kernel. Throws
 * an ImageWriteError.
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
function chunksOf(runs: Iterable<Chunk>): Chunk[] {
  const chunks: { offset: number; length: number }[] = [];
  for (const { offset, length } of runs) {
    const last = chunks.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else chunks.push({ offset, length });
  }
  return chunks;
}

/** The content file of a directory that `writePreparation` wrote. */
export function contentPath(directory: string): string {
  return join(directory, CONTENT);
}

/** Reads what `writePreparation` wrote. Throws if the file is missing or damaged. */
export function readPreparation(directory: string): Preparation {
  return preparationSchema.parse(JSON.parse(readImageText(join(directory, PREPARATION))));
}
