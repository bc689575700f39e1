import type { ProcessGroup } from '../../model/group.ts';
import { groupWriters } from './group-writers.ts';
import { ImageDirectory, type PageSource } from './image.ts';
import { withOneRoot } from './rooted-group.ts';

/** What was written for a group. */
export interface ImageSummary {
  readonly directory: string;
  /** Names of the image files. */
  readonly files: readonly string[];
  /** Bytes of all images, and those of them that are pages of memory. */
  readonly sizeBytes: number;
  readonly pagesBytes: number;
  /** Root processes: what the world sees first of the group. */
  readonly roots: readonly number[];
  /** Number of the fabricated parent, undefined if the group needs none. */
  readonly syntheticRootPid: number | undefined;
}

/** Who comes back for its procedure alone would go on without it. */
function checkProcedures({ processes }: ProcessGroup): void {
  const without = processes.find(({ procedureAlone }) => procedureAlone?.isReady === false);
  if (without !== undefined)
    throw new Error(`process ${without.pid} comes back for its crash procedure, and has not got it`);
}

/**
 * Writes CRIU's images of a group, so that CRIU 3.17 and 4.1 restore it. The directory is created, readable
 * by its owner only. Pages go from `source` to the images without a copy in JavaScript. Throws an
 * ImageWriteError, or the file system's error, if something could not be written; an Error for a process that
 * comes back for its crash procedure alone and has not got it (`applyCrashProcedures`).
 */
export function writeImages(group: ProcessGroup, source: PageSource, directory: string): ImageSummary {
  checkProcedures(group);
  const images = new ImageDirectory(directory);
  try {
    const rooted = withOneRoot(group);
    for (const write of groupWriters) write(rooted, images, source);
    return {
      directory,
      files: images.names,
      sizeBytes: images.sizeBytes,
      pagesBytes: images.pagesBytes,
      roots: rooted.roots.map(({ pid }) => pid),
      syntheticRootPid: rooted.fabricated?.pid,
    };
  } finally {
    images.close();
  }
}
