import { contentRuns, type PageRuns } from '../../model/page-runs.ts';
import type { ImageFile, PageSource } from './image.ts';

/**
 * Where content lies in a raw file, and where it belongs: chunks are one after the other there, from
 * `contentOffset` on.
 */
export interface StoredContent {
  readonly contentOffset: number;
  readonly chunks: { offset: number; length: number }[];
}

/** Appends the pages of a file or of memory to a raw file. Throws an ImageWriteError. */
export function writeContent(
  image: ImageFile,
  source: PageSource,
  runs: PageRuns,
  sizeBytes: number,
): StoredContent {
  const contentOffset = image.sizeBytes;
  image.runs(source, contentRuns(runs, sizeBytes));
  return { contentOffset, chunks: chunksOf(contentRuns(runs, sizeBytes)) };
}

/** What is adjacent in the file is adjacent in the content, wherever it was in memory. */
function chunksOf(
  runs: Iterable<{ readonly offset: number; readonly length: number }>,
): StoredContent['chunks'] {
  const chunks: StoredContent['chunks'] = [];
  for (const { offset, length } of runs) {
    const last = chunks.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else chunks.push({ offset, length });
  }
  return chunks;
}
