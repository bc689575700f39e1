import { O_PATH } from '../system/file-calls.ts';
import { fileType } from '../system/file-mode.ts';
import type { PathFile } from './open-file.ts';

const NOBODY = { uid: 0, euid: 0, signal: 0, pidType: 0, pid: 0 } as const;
const UNKNOWN = { onDisk: false, inode: 0, generation: 0, uid: 0, gid: 0, sizeBytes: 0 } as const;
/** `stat(2)` of /dev/null: device 1:3. */
const NULL_DEVICE = { path: '/dev/null', rdev: 0x103, mode: fileType.character | 0o666 } as const;

/**
 * What stands at the number of a descriptor that CRIU does not make: an O_PATH one, by which nothing can be
 * read, written, polled or set (EBADF, open(2)). It leads to a device that has no content, in no directory.
 */
export function placeholderFile(id: number): PathFile {
  const { path, rdev, mode } = NULL_DEVICE;
  return {
    ...{ type: 'path', id, flags: O_PATH, owner: NOBODY, path, position: undefined, ghostId: undefined },
    identity: { fileSystem: 'devtmpfs', ...UNKNOWN, mode, rdev },
  };
}
