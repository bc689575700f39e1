import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CACHE_DIRECTORY } from '../src/config/paths.ts';
import { processStat } from '../src/system/proc.ts';
import { pathProblem } from '../src/system/trusted-path.ts';

/**
 * Where everything is that the lab builds or downloads: `$XDG_CACHE_HOME/otherworld`, else
 * `~/.cache/otherworld`. Root runs programs from there: where that is a user's (sudo with the user's HOME),
 * it is a directory of root's instead.
 */
export function labCache(
  isRoot: boolean = process.geteuid?.() === 0,
  base: string = process.env.XDG_CACHE_HOME || join(homedir(), '.cache'),
): string {
  const wanted = join(base, 'otherworld');
  return isRoot && pathProblem(wanted, 'allowed') !== undefined ? join(CACHE_DIRECTORY, 'lab') : wanted;
}

let directory: string | undefined;

/** A directory or file below the lab's cache. */
export function cacheDirectory(...parts: readonly string[]): string {
  directory ??= labCache();
  return join(directory, ...parts);
}

/** As `cacheDirectory`, and makes it. */
export function makeCacheDirectory(...parts: readonly string[]): string {
  const directory = cacheDirectory(...parts);
  mkdirSync(directory, { recursive: true });
  return directory;
}

/**
 * A short, stable key of anything JSON can express; cached artefacts are named by the key of their inputs.
 */
export function cacheKey(inputs: unknown): string {
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16);
}

/** Days after which what nobody has used is removed. */
const KEPT_DAYS = 14;

/** Notes that a directory of the cache is in use; what `removeUnused` goes by. */
export function markUsed(directory: string): void {
  const now = new Date();
  utimesSync(directory, now, now);
}

/**
 * Removes the directories in `parent` that nobody has used for two weeks, or so many days: images and
 * snapshots take most of a gigabyte each.
 * @param isConcerned is given a directory's name
 */
export function removeUnused(
  parent: string,
  days = KEPT_DAYS,
  isConcerned: (name: string) => boolean = () => true,
): void {
  for (const name of readdirSync(parent).filter(isConcerned)) {
    const age = Date.now() - (statSync(join(parent, name), { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > days * 86_400_000) rmSync(join(parent, name), { recursive: true, force: true });
  }
}

/**
 * Runs `work` while no other process holds the lock of this name. A lock whose holder has died is taken over.
 * `onWait` is called once if somebody else has it.
 */
export async function withLock<T>(name: string, work: () => Promise<T>, onWait?: () => void): Promise<T> {
  const path = join(makeCacheDirectory('locks'), name);
  let told = false;
  while (!tryLock(path)) {
    if (!told) onWait?.();
    told = true;
    await sleep(300);
  }
  try {
    return await work();
  } finally {
    rmSync(path, { force: true });
  }
}

function tryLock(path: string): boolean {
  try {
    const fd = openSync(path, 'wx');
    writeSync(fd, String(process.pid));
    closeSync(fd);
    return true;
  } catch {
    if (holderIsGone(path)) rmSync(path, { force: true });
    return false;
  }
}

function holderIsGone(path: string): boolean {
  try {
    const pid = Number(readFileSync(path, 'utf8'));
    return pid > 0 && !processExists(pid);
  } catch {
    return false;
  }
}

/** Whether a process with this pid exists (a zombie counts as gone). */
export function processExists(pid: number): boolean {
  return processStat(pid)?.isZombie === false;
}
