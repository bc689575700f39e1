import { readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE_DIRECTORY } from '../src/config/paths.ts';
import { makeCacheDirectory } from './cache.ts';
import { copyFiles, execCaptured } from './channel.ts';
import { LabError } from './error.ts';
import { readGuest } from './guest.ts';

/**
 * What `otherworld arm` builds in a guest (compressed runtime, initramfs) follows from the Debian system of its image,
 * and takes most of a minute under emulation. A guest gets it from one that was there before; arm itself decides
 * whether it still fits.
 */
export async function lendArmCache(name: string): Promise<void> {
  const directory = keptFor(name);
  if (keptFiles(directory).length === 0) return;
  await guestCommand(name, ['rm', '-rf', CACHE_DIRECTORY]);
  await copyFiles(name, directory, `${name}:${CACHE_DIRECTORY}`);
  await guestCommand(name, ['chmod', '700', CACHE_DIRECTORY]);
}

/** Takes over what a guest's `otherworld arm` has built anew. */
export async function keepArmCache(name: string): Promise<void> {
  const directory = keptFor(name);
  const kept = keptFiles(directory);
  const listing = await guestCommand(name, ['ls', CACHE_DIRECTORY]);
  const fresh = listing.split('\n').filter((file) => file !== '' && !kept.includes(file));
  for (const file of fresh) {
    const incomplete = join(makeCacheDirectory('arm'), `${name}.incomplete`);
    rmSync(incomplete, { recursive: true, force: true });
    await copyFiles(name, `${name}:${join(CACHE_DIRECTORY, file)}`, incomplete);
    for (const old of kept) if (kindOf(old) === kindOf(file)) rmSync(join(directory, old), { force: true });
    renameSync(incomplete, join(directory, file));
  }
}

/** Files of the cache are called KIND-HASH; of each kind arm keeps one. */
function kindOf(file: string): string {
  return file.slice(0, file.lastIndexOf('-'));
}

function keptFor(name: string): string {
  return makeCacheDirectory('arm', readGuest(name).systemKey);
}

function keptFiles(directory: string): string[] {
  return readdirSync(directory);
}

async function guestCommand(name: string, command: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await execCaptured(name, command, { timeoutSeconds: 60 });
  if (status !== 0) throw new LabError(`in guest ${name}: ${stderr.trim()}`);
  return stdout;
}
