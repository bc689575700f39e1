import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { CACHE_DIRECTORY } from '../src/config/paths.ts';
import { cacheDirectory } from './cache.ts';
import { copyFiles, execCaptured } from './channel.ts';
import { LabError } from './error.ts';
import { readGuest } from './guest.ts';

/**
 * What `otherworld arm` builds in a guest (compressed runtime, initramfs) depends on the guest's image for the most
 * part, and takes most of a minute under emulation. A guest of the same image gets it from the one before; arm itself
 * decides whether it still fits.
 */
export async function lendArmCache(name: string): Promise<void> {
  const directory = keptFor(name);
  if (!existsSync(directory)) return;
  await copyFiles(name, directory, `${name}:${CACHE_DIRECTORY}`);
  await guestCommand(name, ['chmod', '700', CACHE_DIRECTORY]);
}

/** Takes over what a guest's `otherworld arm` has built, if it is not what was lent. */
export async function keepArmCache(name: string): Promise<void> {
  const directory = keptFor(name);
  const built = await guestCommand(name, ['ls', CACHE_DIRECTORY]);
  const kept = existsSync(directory) ? readdirSync(directory) : [];
  const names = built.split('\n').filter(Boolean);
  if (names.every((file) => kept.includes(file))) return;
  const fresh = `${directory}.${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  for (const file of names) await copyFiles(name, `${name}:${join(CACHE_DIRECTORY, file)}`, fresh);
  rmSync(directory, { recursive: true, force: true });
  renameSync(fresh, directory);
}

function keptFor(name: string): string {
  return cacheDirectory('arm', readGuest(name).imageKey);
}

async function guestCommand(name: string, command: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await execCaptured(name, command, { timeoutSeconds: 60 });
  if (status !== 0) throw new LabError(`in guest ${name}: ${stderr.trim()}`);
  return stdout;
}
