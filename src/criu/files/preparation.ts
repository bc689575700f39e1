import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { GroupFiles } from '../../model/file.ts';
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

const preparationSchema = z.object({
  version: z.literal(1),
  directories: z.array(z.object({ path: z.string(), mode: z.number(), uid: z.number(), gid: z.number() })),
  /** `content` names a file of this directory in which the chunks lie one after the other. */
  files: z.array(
    z.object({
      path: z.string(),
      identity,
      content: z.string(),
      chunks: z.array(z.object({ offset: z.number(), length: z.number() })),
    }),
  ),
  checks: z.array(z.object({ path: z.string(), identity })),
});

export type Preparation = z.infer<typeof preparationSchema>;

/**
 * Writes what `prepareFiles` needs: `preparation.json`, and the content of every file that went with the old kernel. Throws
 * an ImageWriteError.
 */
export function writePreparation(files: GroupFiles, images: ImageDirectory, source: PageSource): void {
  const preparation: Preparation = {
    version: 1,
    directories: [...files.directoriesToMake],
    files: files.filesToMake.map(({ path, identity: was, runs }, number) => {
      const content = `made-${number}.raw`;
      const image = new ImageFile(join(images.path, content), []);
      try {
        const chunks = contentRuns(runs, was.sizeBytes);
        image.runs(source, chunks);
        return {
          path,
          identity: was,
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
