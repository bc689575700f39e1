import { constants } from 'node:os';
import { checked, libcFunction } from './libc.ts';

const lsetxattr = libcFunction<[path: string, name: string, value: Uint8Array, size: number, flags: number]>(
  'int lsetxattr(const char *path, const char *name, void *value, size_t size, int flags)',
);
const lremovexattr = libcFunction<[path: string, name: string]>(
  'int lremovexattr(const char *path, const char *name)',
);
const fgetxattr = libcFunction<[fd: number, name: string, value: null, size: number]>(
  'long fgetxattr(int fd, const char *name, void *value, size_t size)',
);
const fremovexattr = libcFunction<[fd: number, name: string]>('int fremovexattr(int fd, const char *name)');

/** The file has no such attribute; its file system knows none. */
const NONE: readonly number[] = [-constants.errno.ENODATA, -constants.errno.EOPNOTSUPP];

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
