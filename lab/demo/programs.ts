import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cacheDirectory, makeCacheDirectory } from '../cache.ts';
import { runChecked } from '../command.ts';
import { repositoryRoot } from '../node-tree.ts';
import type { Progress } from '../progress.ts';
import type { Release } from '../release.ts';

const examples = join(repositoryRoot, 'examples');
const header = join(repositoryRoot, 'sdk/c/otherworld.h');

/** The demo's own programs, built for the guest: paths on this machine. */
export interface Programs {
  readonly counter: string;
  readonly orbits: string;
  /** JOE with a crash procedure. */
  readonly joe: string;
}

/** Builds the programs from examples/, or takes them from the cache if their sources are the same. */
export async function buildPrograms(release: Release, progress: Progress): Promise<Programs> {
  const counterSources = [join(examples, 'counter/counter.c'), join(examples, 'counter/Makefile'), header];
  const counter = await built('counter', counterSources, async (directory) => {
    progress.step('compiling the counter');
    await runChecked('make', ['-s', '-C', join(examples, 'counter'), `BUILD=${directory}`]);
  });
  const orbits = await buildOrbits(progress);
  const recipe = join(examples, 'joe/build.sh');
  const joeSources = [recipe, join(examples, 'joe/crash-procedure.patch'), header];
  const joe = await built(`joe-${release}`, joeSources, async (directory) => {
    progress.step("building JOE with a crash procedure from Debian's source package (first time only)");
    await runChecked(recipe, [release, join(directory, `joe-${release}`)], { what: 'building JOE' });
  });
  return { counter, orbits, joe };
}

/** Builds the computation with a known result. @returns its path */
export function buildOrbits(progress: Progress): Promise<string> {
  const sources = [join(examples, 'orbits/orbits.c'), join(examples, 'orbits/Makefile')];
  return built('orbits', sources, async (directory) => {
    progress.step('compiling the computation');
    await runChecked('make', ['-s', '-C', join(examples, 'orbits'), `BUILD=${directory}`]);
  });
}

/**
 * Compiles the servers of examples/runtimes that have to be compiled with the compilers of a release.
 * @returns their directory
 */
export async function buildRuntimes(release: Release, progress: Progress): Promise<string> {
  const folder = join(examples, 'runtimes');
  const sources = ['build.sh', 'sums.go', 'Sums.java'].map((name) => join(folder, name));
  return built(`runtimes-${release}`, sources, async (directory) => {
    progress.step(`compiling servers in Go and Java for ${release} (first time only)`);
    const output = join(directory, `runtimes-${release}`);
    await runChecked(join(folder, 'build.sh'), [release, output], { what: 'compiling them' });
  });
}

/** What the computation comes to after so many steps of each of its threads, computed on this machine. */
export async function knownOrbits(program: string, steps: number, threads = 1): Promise<string> {
  const scratch = mkdtempSync(join(tmpdir(), 'otherworld-orbits-'));
  try {
    const file = join(scratch, 'result');
    await runChecked(program, [String(steps), file, String(threads)]);
    return readFileSync(file, 'latin1').trim();
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

/** The program of this name, built by `build` in a directory that stands for its sources. */
async function built(
  name: string,
  sources: readonly string[],
  build: (directory: string) => Promise<void>,
): Promise<string> {
  const hash = createHash('sha256');
  for (const source of sources) hash.update(readFileSync(source));
  const key = `${name}-${hash.digest('hex').slice(0, 16)}`;
  const path = cacheDirectory('programs', key, name);
  if (!existsSync(path)) await build(makeCacheDirectory('programs', key));
  return path;
}
