import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { ExtendedAttribute, GroupFiles } from '../../model/file.ts';
import { type ImageDirectory, ImageFile, type PageSource } from '../image.ts';
import { contentRuns } from './path.ts';

/** What is to be made and to be checked before `criu restore`; lies next to CRIU's images, which do not know of it. */
const PREPARATION = 'preparation.json';

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

const preparationSchema = z.object({
  version: z.literal(1),
  directories: z.array(
    z.object({ path: z.string(), mode: z.number(), uid: z.number(), gid: z.number(), attributes }),
  ),
  /** `content` names a file of this directory in which the chunks lie one after the other. */
  files: z.array(
    z.object({
      path: z.string(),
      identity,
      attributes,
      accessedMicroseconds: z.number(),
      modifiedMicroseconds: z.number(),
      content: z.string(),
      chunks: z.array(z.object({ offset: z.number(), length: z.number() })),
    }),
  ),
  checks: z.array(z.object({ path: z.string(), identity })),
});

function encoded(list: readonly ExtendedAttribute[]): z.infer<typeof attributes> {
  return list.map(({ name, value }) => ({ name, value: Buffer.from(value).toString('base64') }));
}

export type Preparation = z.infer<typeof preparationSchema>;

/**
 * Writes what `prepareFiles` needs: `preparation.json`, and the content of every file that went with the old kernel. Throws
 * an ImageWriteError.
 */
export function writePreparation(files: GroupFiles, images: ImageDirectory, source: PageSource): void {
  const preparation: Preparation = {
    version: 1,
    directories: files.directoriesToMake.map((directory) => ({
      ...directory,
      attributes: encoded(directory.attributes),
    })),
    files: files.filesToMake.map(({ runs, attributes: own, ...file }, number) => {
      const content = `made-${number}.raw`;
      const image = new ImageFile(join(images.path, content), []);
      try {
        const chunks = contentRuns(runs, file.identity.sizeBytes);
        image.runs(source, chunks);
        return {
          ...file,
          attributes: encoded(own),
          content,
          chunks: chunks.map(({ offset, length }) => ({ offset, length })),
        };
      } finally {
        image.close();
      }
    }),
    checks: [...files.filesToCheck],
  };
  writeFileSync(join(images.path, PREPARATION), `${JSON.stringify(preparation, undefined, 1)}\n`, {
    mode: 0o600,
  });
}

/** Reads what `writePreparation` wrote. Throws if the file is missing or damaged. */
export function readPreparation(directory: string): Preparation {
  return preparationSchema.parse(JSON.parse(readFileSync(join(directory, PREPARATION), 'utf8')));
}
