import { constants } from 'node:fs';

const { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } = constants;

/** Types of files, as the bits of a mode that say them (inode(7)). */
export const fileType = {
  regular: S_IFREG,
  directory: S_IFDIR,
  symlink: S_IFLNK,
  fifo: S_IFIFO,
  socket: S_IFSOCK,
  character: S_IFCHR,
  block: S_IFBLK,
} as const;

/** Bits of a mode that give a program its file's owner's, or group's, rights. */
export const SET_ID = 0o6000;
/** The bit of a directory of which nobody but an entry's owner takes the entry away. */
export const STICKY = 0o1000;

/** The type in a mode: one of {@link fileType}. */
export function typeOf(mode: number): number {
  return mode & S_IFMT;
}

/** Of a mode: its group or everybody can write. */
export const WRITABLE_BY_OTHERS = 0o022;

/**
 * Whether nobody but root can make, take away or rename what is in a directory. An ACL that lets somebody
 * else is seen in the mode: the bits of its group are what the ACL allows at most (acl(5)).
 */
export function isRootsAlone({ uid, mode }: { readonly uid: number; readonly mode: number }): boolean {
  return uid === 0 && (mode & WRITABLE_BY_OTHERS) === 0;
}

/** The permissions in a mode, with the set-ID and sticky bits: what chmod(2) sets. */
export function permissionsOf(mode: number): number {
  return mode & 0o7777;
}
