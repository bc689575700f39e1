import { closeSync, constants, openSync, readFileSync } from 'node:fs';

/** Opens a file among the images for reading, not through a link. */
export function openImage(path: string): number {
  return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
}

/** The text of a file among the images, not through a link. */
export function readImageText(path: string): string {
  const fd = openImage(path);
  try {
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}
