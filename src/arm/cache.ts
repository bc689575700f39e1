import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { CACHE_DIRECTORY } from '../config/paths.ts';

/** A short hash over anything that JSON can write. */
export function hashOf(inputs: unknown): string {
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16);
}

/** A file's identity without reading it: path, size and time of change; a missing file counts as missing. */
export function fileStamp(path: string): (string | number)[] {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat === undefined ? [path, 'missing'] : [path, stat.size, stat.mtimeMs];
}

/** The stamps of all files under a directory, in a stable order. */
export function treeStamp(directory: string): (string | number)[][] {
  if (!existsSync(directory)) return [[directory, 'missing']];
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => join(directory, name))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
    .map(fileStamp);
}

/** The text of all files in a directory: two copies of it are the same input. */
export function contents(directory: string): string[][] {
  const files = readdirSync(directory).sort();
  return files.map((name) => [name, readFileSync(join(directory, name), 'utf8')]);
}

/** Where the cache has the file of these inputs, if it has it. */
export function cachedPath(kind: string, inputs: unknown): { path: string; exists: boolean } {
  const path = join(CACHE_DIRECTORY, `${kind}-${hashOf(inputs)}`);
  return { path, exists: existsSync(path) };
}

/**
 * A file of the cache, built if it is not there; older files of the same kind are removed.
 * @param kind first part of the file's name, without a dash
 * @param build writes the file to the path that it is given
 */
export function cached(
  kind: string,
  inputs: unknown,
  build: (path: string) => void,
): { path: string; built: boolean } {
  const { path, exists } = cachedPath(kind, inputs);
  const name = basename(path);
  if (exists) return { path, built: false };
  mkdirSync(CACHE_DIRECTORY, { recursive: true, mode: 0o700 });
  const beside = `${path}.new`;
  rmSync(beside, { recursive: true, force: true });
  build(beside);
  renameSync(beside, path);
  for (const other of readdirSync(CACHE_DIRECTORY)) {
    if (other !== name && other.startsWith(`${kind}-`)) rmSync(join(CACHE_DIRECTORY, other), { force: true });
  }
  return { path, built: true };
}
