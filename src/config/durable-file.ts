import { closeSync, fsyncSync, mkdirSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Replaces a file so that after a crash at any moment either the old or the new content is there, whole, and the new
 * one once this function has returned: written beside it, fsynced, renamed, the directory fsynced (rename(2), fsync(2)).
 * Missing directories are made with mode 0700, the file has mode 0600.
 */
export function writeDurably(path: string, content: string | Uint8Array): void {
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const beside = `${path}.new`;
  const fd = openSync(beside, 'w', 0o600);
  try {
    writeFileSync(fd, content);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  renameSync(beside, path);
  const directoryFd = openSync(directory, 'r');
  try {
    fsyncSync(directoryFd);
  } finally {
    closeSync(directoryFd);
  }
}
