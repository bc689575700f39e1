import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** `ENOSPC`: the name of an errno of Linux; `errno 524` for one without a name. */
export function errnoName(errno: number): string {
  const known = getSystemErrorMap().get(-errno)?.[0];
  return (
    known ?? Object.entries(constants.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`
  );
}

/**
 * `ENOSPC, no space left on device`: an errno of Linux by its name and, where Node.js knows them, in words.
 */
export function errnoText(errno: number): string {
  const words = getSystemErrorMap().get(-errno)?.[1];
  return words === undefined ? errnoName(errno) : `${errnoName(errno)}, ${words}`;
}

/**
 * A call into the kernel failed: `mount: EINVAL, invalid argument`. `code` is the errno's name, as in Node's
 * own errors.
 */
export class SystemCallError extends Error {
  override readonly name = 'SystemCallError';
  /** The function's name in libc. */
  readonly call: string;
  readonly errno: number;
  readonly code: string;

  constructor(call: string, errno: number) {
    super(`${call}: ${errnoText(errno)}`);
    this.call = call;
    this.errno = errno;
    this.code = errnoName(errno);
  }
}
