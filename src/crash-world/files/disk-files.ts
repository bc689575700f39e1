import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from 'node:fs';
import type { DiskFile, Disks } from '../../capture/file-capture.ts';

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;

function read(fd: number, offset: number, length: number): Buffer | undefined {
  const bytes = Buffer.allocUnsafe(length);
  try {
    for (let done = 0; done < length; ) {
      const count = readSync(fd, bytes, done, length - done, offset + done);
      if (count === 0) return undefined;
      done += count;
    }
    return bytes;
  } catch {
    // The disk has lost it: who asks cannot have it.
    return undefined;
  }
}

function asDiskFile(fd: number): DiskFile | undefined {
  const stats = fstatSync(fd, { bigint: true });
  if (!stats.isFile()) return undefined;
  const sizeBytes = Number(stats.size);
  return {
    inode: Number(stats.ino),
    mode: Number(stats.mode),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    sizeBytes,
    modifiedNanoseconds: stats.mtimeNs,
    read: (offset, length) => (offset + length > sizeBytes ? undefined : read(fd, offset, length)),
    close: () => closeSync(fd),
  };
}

function openFile(path: string): DiskFile | undefined {
  let fd: number | undefined;
  try {
    // Paths come out of the dead kernel without links: what has one now is not what it was.
    if (realpathSync(path) !== path) return undefined;
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    const file = asDiskFile(fd);
    if (file === undefined) closeSync(fd);
    return file;
  } catch {
    // Not there, or not to be read: as if there were none.
    if (fd !== undefined) closeSync(fd);
    return undefined;
  }
}

/** The disks as they are mounted in this system. */
export const mountedDisks: Disks = { open: openFile };
