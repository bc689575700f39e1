import { mkdirSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CACHE_DIRECTORY } from '../config/paths.ts';
import { pathProblem } from '../system/trusted-path.ts';

/**
 * Where what Node.js has compiled is kept. What is found there is run: root's is where only root can write,
 * wherever HOME leads (under sudo it may be a user's).
 * @returns undefined if there is no such place
 */
export function compileCacheDirectory(
  isRoot: boolean,
  home: string = homedir(),
  roots: string = CACHE_DIRECTORY,
): string | undefined {
  if (!isRoot) return join(home, '.cache', 'otherworld', 'compiled');
  const directory = join(roots, 'compiled');
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  } catch {
    // A file system that cannot be written to keeps nothing: it is compiled anew each time.
    return undefined;
  }
  return pathProblem(directory) === undefined ? directory : undefined;
}

/**
 * Keeps what Node.js made of the TypeScript sources: starting again takes a third less. Where that cannot be
 * kept, it does without.
 */
export function keepCompiled(): void {
  const directory = compileCacheDirectory(process.geteuid?.() === 0);
  if (directory !== undefined) enableCompileCache(directory);
}
