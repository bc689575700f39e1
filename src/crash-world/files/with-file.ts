import { closeSync } from 'node:fs';

/** Closes an open file when `use` has ended. */
export function withFile<T>(fd: number, use: (fd: number) => T): T {
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}
