import type { FileLock, GroupFiles } from '../../../model/file.ts';
import type { ProcessGroup } from '../../../model/group.ts';
import type { ImageDirectory } from '../image.ts';
import { FileLockEntrySchema } from '../proto/gen/files_pb.ts';

/** FL_POSIX, FL_FLOCK and FL_OFD of criu/include/file-lock.h. */
const lockFlags = { posix: 1, flock: 2, ofd: 4 } as const;

function writeLock(images: ImageDirectory, { kind, type, pid, fd, start, length }: FileLock): void {
  images.image('filelocks').entry(FileLockEntrySchema, {
    flag: lockFlags[kind],
    type,
    pid,
    fd,
    start: BigInt(start),
    len: BigInt(length),
  });
}

/** Writes `filelocks.img` of a group that has any locks. */
export function writeLocks({ files }: Pick<ProcessGroup, 'files'>, images: ImageDirectory): void {
  for (const lock of files.locks) writeLock(images, lock);
}

/** Options of `criu restore` without which it does not take the locks of a group. */
export function lockOptions({ locks }: GroupFiles): string[] {
  return locks.length > 0 ? ['--file-locks'] : [];
}
