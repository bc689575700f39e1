import type { GroupFiles } from '../../../model/file.ts';
import type { IoUring } from '../../../model/io-uring.ts';
import type { PathFile } from '../../../model/open-file.ts';
import { fileType } from '../../../system/file-mode.ts';
import { PAGE_SIZE } from '../../../system/page.ts';
import { writeContent } from '../content.ts';
import type { ImageDirectory, PageSource } from '../image.ts';

/** O_PATH (include/uapi/asm-generic/fcntl.h): nothing is done by such a descriptor. */
const O_PATH = 0o10000000;
const NOBODY = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 } as const;
/** `stat(2)` of /dev/null: device 1:3. */
const NULL_DEVICE = { path: '/dev/null', rdev: 0x103, mode: fileType.character | 0o666 } as const;

/** CRIU knows no io_uring: it takes the number of the descriptor, until the ring is made. */
export function standInOf({ id }: IoUring): PathFile {
  const { path, rdev, mode } = NULL_DEVICE;
  const unknown = { onDisk: false, inode: 0, generation: 0, uid: 0, gid: 0, sizeBytes: 0 };
  return {
    ...{ type: 'path', id, flags: O_PATH, owner: NOBODY, path, position: undefined, ghostId: undefined },
    identity: { fileSystem: 'devtmpfs', ...unknown, mode, rdev },
  };
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
