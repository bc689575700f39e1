import type { GroupFiles } from '../../../model/file.ts';
import type { IoUring } from '../../../model/io-uring.ts';
import type { PathFile } from '../../../model/open-file.ts';
import { placeholderFile } from '../../../model/placeholder.ts';
import { PAGE_SIZE } from '../../../system/page.ts';
import { writeContent } from '../content.ts';
import type { ImageDirectory, PageSource } from '../image.ts';

/** CRIU knows no io_uring: it takes the number of the descriptor, until the ring is made. */
export function standInOf({ id }: IoUring): PathFile {
  return placeholderFile(id);
}

/** The file in the images that has a ring's shared memory: both rings, then the entries of requests. */
export function ringContent({ id }: Pick<IoUring, 'id'>): string {
  return `io-uring-${id}`;
}

/** Writes what is in the shared memory of all rings. */
export function writeRings({ files }: GroupFiles, images: ImageDirectory, source: PageSource): void {
  for (const file of files) {
    if (file.type !== 'io-uring') continue;
    const image = images.pages(ringContent(file));
    for (const runs of [file.rings, file.entries]) writeContent(image, source, runs, runs.pages * PAGE_SIZE);
    image.close();
  }
}
