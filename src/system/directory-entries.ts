import { checked, libcFunction } from './libc.ts';

/** Where the members of a `struct dirent64` are (getdents64(2)). */
const ENTRY = { inode: 0, length: 16, name: 19 };
const BLOCK = 1 << 16;

const getdents64 = libcFunction<[fd: number, buffer: Uint8Array, size: number]>(
  'long getdents64(int fd, _Out_ uint8_t *buffer, size_t size)',
);

/** An entry of a directory. */
export interface DirectoryEntry {
  readonly inode: number;
  readonly name: string;
}

/**
 * The entries of an open directory from where it was read to, `.` and `..` among them. node:fs does not tell
 * their inode numbers.
 * @throws SystemCallError
 */
export function* directoryEntries(fd: number): Generator<DirectoryEntry, void, undefined> {
  const block = Buffer.alloc(BLOCK);
  for (;;) {
    const length = checked('getdents64', getdents64(fd, block, block.length));
    if (length === 0) return;
    for (let at = 0; at < length; at += block.readUInt16LE(at + ENTRY.length)) {
      const end = block.indexOf(0, at + ENTRY.name);
      yield {
        inode: Number(block.readBigUInt64LE(at + ENTRY.inode)),
        name: block.toString('utf8', at + ENTRY.name, end),
      };
    }
  }
}
