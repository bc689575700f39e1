import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { cacheDirectory, cacheKey, withLock } from './cache.ts';
import { LabError } from './error.ts';
import type { Progress } from './progress.ts';

/** Root of the repository that this file belongs to. */
export const repositoryRoot = join(dirname(fileURLToPath(import.meta.url)), '..');

const lockFile = z.object({
  packages: z.record(
    z.string(),
    z.object({
      dev: z.boolean().optional(),
      version: z.string().optional(),
      optional: z.boolean().optional(),
    }),
  ),
});

/**
 * What a machine needs to run Otherworld besides its sources: `node_modules` with the production packages of
 * the lock file, Node.js among them. Keyed by their versions, so that a change of sources builds no image
 * anew.
 */
export async function prepareNodeTree(progress: Progress): Promise<{ key: string; directory: string }> {
  const packages = productionPackages();
  const key = cacheKey(packages);
  const directory = cacheDirectory('node-tree', key);
  if (!existsSync(directory)) {
    await withLock('node-tree', async () => {
      if (existsSync(directory)) return;
      progress.step("collecting Otherworld's runtime (Node.js and libraries)");
      copyPackages(packages, directory);
    });
  }
  return { key, directory };
}

function productionPackages(): { path: string; version: string }[] {
  const parsed = lockFile.parse(JSON.parse(readFileSync(join(repositoryRoot, 'package-lock.json'), 'utf8')));
  return Object.entries(parsed.packages)
    .filter(([path, entry]) => path !== '' && entry.dev !== true)
    .filter(([path]) => existsSync(join(repositoryRoot, path)))
    .map(([path, entry]) => ({ path, version: entry.version ?? '' }));
}

function copyPackages(packages: readonly { path: string }[], directory: string): void {
  const work = `${directory}.new`;
  rmSync(work, { recursive: true, force: true });
  for (const { path } of packages) {
    const target = join(work, path);
    mkdirSync(dirname(target), { recursive: true });
    cpSync(join(repositoryRoot, path), target, { recursive: true, verbatimSymlinks: true });
  }
  if (!existsSync(join(work, 'node_modules/node/bin/node'))) {
    throw new LabError('node_modules has no Node.js: run ./otherworld once, or npm ci');
  }
  renameSync(work, directory);
}
