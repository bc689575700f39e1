import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { bootGuest, removeGuest } from '../lab/boot.ts';
import { LabError } from '../lab/error.ts';
import { type GuestState, guestNames } from '../lab/guest.ts';
import { armGuest, installOtherworld } from '../lab/install.ts';
import type { Progress } from '../lab/progress.ts';

/** What a part of the benchmarks needs of its guest. */
export interface BenchGuestOptions {
  readonly memoryMiB: number;
  /** Otherworld is installed and armed; without it, the guest is a bare Debian. */
  readonly arm: boolean;
  /** Debian packages, if others than those of most parts: an image of its own. */
  readonly packages?: readonly string[];
}

/** Debian packages of most guests here: one image, the demo's. */
const PACKAGES = ['joe', 'tmux', 'redis-server', 'redis-tools', 'python3'];

const guestPrefix = `bench-${process.pid}-`;
const scratchDirectories = new Set<string>();

/**
 * Boots a Debian 13 guest with two CPUs, hands its name to `work` and removes it, whatever happens.
 *
 * @throws LabError if it cannot be booted or armed
 */
export async function withGuest<T>(
  what: string,
  options: BenchGuestOptions,
  progress: Progress,
  work: (guest: string, state: GuestState) => Promise<T>,
): Promise<T> {
  const name = `${guestPrefix}${what}`;
  const { memoryMiB, arm, packages = PACKAGES } = options;
  const state = await bootGuest(
    {
      ...{ name, release: 'trixie', packages, memoryMiB, cpus: 2 },
      ...{ crashKernelMiB: arm ? 320 : 0, forwards: [], append: '' },
    },
    progress,
  );
  try {
    if (arm) {
      progress.step('installing Otherworld and arming it');
      await installOtherworld(name);
      await armGuest(name);
    }
    return await work(name, state);
  } finally {
    await removeGuest(name);
  }
}

/**
 * Hands a new directory on tmpfs to `work` and removes it, whatever happens.
 *
 * @param bytes that will be needed there
 * @throws LabError if they are not free
 */
export async function withScratch<T>(bytes: number, work: (directory: string) => Promise<T>): Promise<T> {
  const { bavail, bsize } = statfsSync('/dev/shm');
  if (bavail * bsize < bytes) {
    throw new LabError(
      `needs ${Math.ceil(bytes / 2 ** 20)} MiB in /dev/shm; ${(bavail * bsize) >> 20} are free`,
    );
  }
  const directory = mkdtempSync(join('/dev/shm', 'otherworld-bench-'));
  scratchDirectories.add(directory);
  try {
    return await work(directory);
  } finally {
    removeScratch(directory);
  }
}

/** Removes the guests and directories of this run: for a run that is broken off. */
export async function removeGuests(): Promise<void> {
  for (const directory of scratchDirectories) removeScratch(directory);
  for (const name of guestNames()) if (name.startsWith(guestPrefix)) await removeGuest(name);
}

function removeScratch(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  scratchDirectories.delete(directory);
}
