import { createHash } from 'node:crypto';
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CACHE_DIRECTORY } from '../src/config/paths.ts';
import { ifThere, processStat } from '../src/system/proc.ts';
import { codeOf } from '../src/system/thrown.ts';
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
 * Removes the directories in `parent` that nobody has used for two weeks: images and snapshots take most of a
 * gigabyte each.
 */
export function removeUnused(parent: string): void {
  for (const name of readdirSync(parent)) {
    const age = Date.now() - (statSync(join(parent, name), { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > KEPT_DAYS * 86_400_000) rmSync(join(parent, name), { recursive: true, force: true });
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

/**
 * A lock is there with its holder's name in it, or not at all.
 * @returns whether it is ours; where its holder was gone, the next try may succeed
 * @throws the file system's errors other than that it is there
 */
export function tryLock(path: string): boolean {
  const prepared = `${path}.${process.pid}`;
  writeFileSync(prepared, [process.pid, processStat(process.pid)?.startTicks, bootId()].join(' '));
  try {
    if (ifNotThere(() => linkSync(prepared, path))) return true;
    if (holderIsGone(path)) removeStale(path);
    return false;
  } finally {
    rmSync(prepared, { force: true });
  }
}

function ifNotThere(make: () => void): boolean {
  try {
    make();
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false;
    throw error;
  }
}

/** By another name first: another who waits may have removed it already, and this be the lock of the next. */
function removeStale(path: string): void {
  const stale = `${path}.${process.pid}.stale`;
  const wasThere = ifThere(() => {
    renameSync(path, stale);
    return true;
  });
  if (wasThere && !holderIsGone(stale)) ifNotThere(() => linkSync(stale, path));
  rmSync(stale, { force: true });
}

/**
 * Whether the process that a lock names has ended. A pid alone, as older versions write it, may be another
 * process's by now; a lock without even that has no holder.
 */
function holderIsGone(path: string): boolean {
  const text = ifThere(() => readFileSync(path, 'utf8'));
  if (text === undefined) return false;
  const [pid, startTicks, boot] = text.split(' ');
  const holder = processStat(Number(pid));
  if (holder === undefined || holder.isZombie) return true;
  return startTicks !== undefined && (Number(startTicks) !== holder.startTicks || boot !== bootId());
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** Whether a process with this pid exists (a zombie counts as gone). */
export function processExists(pid: number): boolean {
  return processStat(pid)?.isZombie === false;
}
