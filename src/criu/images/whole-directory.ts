import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/** Where things are written until all of them are whole. */
const PART = '.part';

/**
 * Has a directory filled, or leaves it as it was: absent, or empty. `write` gets a directory inside it, whose
 * entries are moved up in the end. Throws what `write` throws, after everything that it wrote is gone again.
 */
export function writeWhole<T>(directory: string, write: (part: string) => T): T {
  const isNew = !existsSync(directory);
  const part = join(directory, PART);
  mkdirSync(part, { recursive: true, mode: 0o700 });
  try {
    const result = write(part);
    for (const name of readdirSync(part)) renameSync(join(part, name), join(directory, name));
    rmdirSync(part);
    return result;
  } catch (error) {
    rmSync(isNew ? directory : part, { recursive: true, force: true });
    throw error;
  }
}
