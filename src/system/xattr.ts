import { constants } from 'node:os';
import { checked, libcFunction } from './libc.ts';
import { messageOf } from './thrown.ts';

const lsetxattr = libcFunction<[path: string, name: string, value: Uint8Array, size: number, flags: number]>(
  'int lsetxattr(const char *path, const char *name, void *value, size_t size, int flags)',
);
const lremovexattr = libcFunction<[path: string, name: string]>(
  'int lremovexattr(const char *path, const char *name)',
);
const lgetxattr = libcFunction<[path: string, name: string, value: Uint8Array, size: number]>(
  'long lgetxattr(const char *path, const char *name, uint8_t *value, size_t size)',
);
const llistxattr = libcFunction<[path: string, list: Uint8Array, size: number]>(
  'long llistxattr(const char *path, uint8_t *list, size_t size)',
);
const fgetxattr = libcFunction<[fd: number, name: string, value: null, size: number]>(
  'long fgetxattr(int fd, const char *name, void *value, size_t size)',
);
const fremovexattr = libcFunction<[fd: number, name: string]>('int fremovexattr(int fd, const char *name)');

/** The file has no such attribute; its file system knows none. */
const NONE: readonly number[] = [-constants.errno.ENODATA, -constants.errno.EOPNOTSUPP];

/** XATTR_SIZE_MAX and XATTR_LIST_MAX (linux/limits.h). */
const MAX_BYTES = 65_536;

/** What a new file gets from a default ACL of its directory. */
const INHERITED = ['system.posix_acl_access', 'system.posix_acl_default'];

/** An error says which attribute it is about. */
export function aboutAttribute(attribute: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    throw new Error(`attribute ${attribute}: ${messageOf(error)}`, { cause: error });
  }
}

/** Takes away the ACLs that a new file has inherited. Throws an Error if one cannot be taken away. */
export function removeInherited(path: string): void {
  for (const name of INHERITED) aboutAttribute(name, () => removeAttribute(path, name));
}

/** An extended attribute, of which an ACL is one. */
export interface Attribute {
  readonly name: string;
  readonly value: Uint8Array;
}

/**
 * The extended attributes of a file, or of a link itself, that this program can see; none where the file
 * system knows none. @throws SystemCallError
 */
export function readAttributes(path: string): Attribute[] {
  const list = Buffer.alloc(MAX_BYTES);
  const length = llistxattr(path, list, list.length);
  if (NONE.includes(length)) return [];
  const names = list.toString('utf8', 0, checked('llistxattr', length)).split('\0').filter(Boolean);
  return names.map((name) => {
    const value = Buffer.alloc(MAX_BYTES);
    const bytes = checked('lgetxattr', lgetxattr(path, name, value, value.length));
    return { name, value: value.subarray(0, bytes) };
  });
}

/** Sets an extended attribute of a file, or of a link itself (xattr(7)). @throws SystemCallError */
export function setAttribute(path: string, name: string, value: Uint8Array): void {
  checked('lsetxattr', lsetxattr(path, name, value, value.length, 0));
}

/**
 * Takes an extended attribute away from a file, or from a link itself, if it has it.
 * @throws SystemCallError
 */
export function removeAttribute(path: string, name: string): void {
  const result = lremovexattr(path, name);
  if (!NONE.includes(result)) checked('lremovexattr', result);
}

/** Whether an open file has an extended attribute that can be read. */
export function hasAttribute(fd: number, name: string): boolean {
  return fgetxattr(fd, name, null, 0) >= 0;
}

/** Takes an extended attribute away from an open file that has it. @throws SystemCallError */
export function removeOpenAttribute(fd: number, name: string): void {
  checked('fremovexattr', fremovexattr(fd, name));
}
