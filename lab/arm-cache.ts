import { existsSync, linkSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE_DIRECTORY } from '../src/config/paths.ts';
import { makeCacheDirectory, withLock } from './cache.ts';
import { copyFiles, execChecked, LOOK_SECONDS } from './channel.ts';
import { guestPaths, readGuest } from './guest.ts';

/**
 * What `otherworld arm` builds in a guest (compressed runtime, initramfs) follows from the Debian system of
 * its image, and takes most of a minute under emulation. A guest gets it from one that was there before; arm
 * itself decides whether it still fits.
 */
export async function lendArmCache(name: string): Promise<void> {
  const lent = join(guestPaths(name).directory, 'lent');
  rmSync(lent, { recursive: true, force: true });
  mkdirSync(lent);
  // Links, because another guest may replace the files while these are being sent.
  const directory = keptFor(name);
  await withLock(ARM_LOCK, async () => {
    for (const file of readdirSync(directory).filter(isBuilt))
      linkSync(join(directory, file), join(lent, file));
  });
  if (readdirSync(lent).length > 0) {
    await guestCommand(name, ['rm', '-rf', CACHE_DIRECTORY]);
    await copyFiles(name, lent, `${name}:${CACHE_DIRECTORY}`);
    await guestCommand(name, ['chmod', '700', CACHE_DIRECTORY]);
  }
  rmSync(lent, { recursive: true, force: true });
}

/** Takes over what a guest's `otherworld arm` has built anew. */
export async function keepArmCache(name: string): Promise<void> {
  const directory = keptFor(name);
  const listing = await guestCommand(name, ['ls', CACHE_DIRECTORY]);
  for (const file of listing.split('\n').filter(isBuilt)) {
    if (existsSync(join(directory, file))) continue;
    const fetched = join(guestPaths(name).directory, 'fetched');
    await copyFiles(name, `${name}:${join(CACHE_DIRECTORY, file)}`, fetched);
    await withLock(ARM_LOCK, async () => {
      for (const old of readdirSync(directory)) {
        if (kindOf(old) === kindOf(file)) rmSync(join(directory, old), { force: true });
      }
      renameSync(fetched, join(directory, file));
    });
  }
}

/** Held while files are listed and linked, or replaced; never while they are sent. */
const ARM_LOCK = 'arm';

/** What arm has built, and not the directory in which Node.js keeps what it has compiled. */
function isBuilt(name: string): boolean {
  return /-[0-9a-f]+$/.test(name);
}

/** Files of the cache are called KIND-HASH; of each kind arm keeps one. */
function kindOf(file: string): string {
  return file.slice(0, file.lastIndexOf('-'));
}

function keptFor(name: string): string {
  return makeCacheDirectory('arm', readGuest(name).systemKey);
}

function guestCommand(name: string, command: readonly string[]): Promise<string> {
  return execChecked(name, command, { timeoutSeconds: LOOK_SECONDS });
}
