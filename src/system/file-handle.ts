import { libcFunction } from './libc.ts';

/** MAX_HANDLE_SZ of linux/exportfs.h, behind the size and the type. */
const HANDLE_BYTES = 128;
const HEADER_BYTES = 8;
/** Types of handles (linux/exportfs.h, fs/xfs/xfs_export.c). */
const FILEID_INO32_GEN = 1;
const XFS_FILEID_INO64_GEN = 0x81;

const nameToHandleAt = libcFunction<
  [directoryFd: number, path: string, handle: Uint8Array, mountId: Uint8Array, flags: number]
>('int name_to_handle_at(int fd, const char *path, uint8_t *handle, uint8_t *mount_id, int flags)');

/**
 * Number and generation of an inode, which no other on its file system has ever had together: of something
 * that cannot be opened, like a socket (name_to_handle_at(2)). A link is not followed. Undefined if there is
 * nothing by the name, and on file systems other than ext2 to ext4 and XFS.
 */
export function inodeOf(
  directoryFd: number,
  name: string,
): { readonly inode: number; readonly generation: number } | undefined {
  const handle = Buffer.alloc(HEADER_BYTES + HANDLE_BYTES);
  handle.writeUInt32LE(HANDLE_BYTES, 0);
  if (nameToHandleAt(directoryFd, name, handle, Buffer.alloc(4), 0) !== 0) return undefined;
  const [bytes, type] = [handle.readUInt32LE(0), handle.readInt32LE(4)];
  // tmpfs has the same type for another handle, of twelve bytes.
  if (type === FILEID_INO32_GEN && bytes === 8)
    return { inode: handle.readUInt32LE(HEADER_BYTES), generation: handle.readUInt32LE(HEADER_BYTES + 4) };
  if (type === XFS_FILEID_INO64_GEN)
    return {
      inode: Number(handle.readBigUInt64LE(HEADER_BYTES)),
      generation: handle.readUInt32LE(HEADER_BYTES + 8),
    };
  return undefined;
}
