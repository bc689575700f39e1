import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { cacheDirectory, cacheKey, markUsed } from './cache.ts';
import { execChecked, LOOK_SECONDS } from './channel.ts';
import { runChecked } from './command.ts';
import { LabError } from './error.ts';
import { type GuestPaths, guestPaths } from './guest.ts';
import { kernelParameters, type Machine, type MachineSource } from './machine.ts';
import type { Progress } from './progress.ts';
import { type Qmp, withQmp } from './qmp.ts';

/** Raise when QEMU's arguments change: a memory image fits only the machine that it was taken from. */
const MACHINE_VERSION = 1;

/** A guest that had booted: disk, memory and console. */
export interface Snapshot {
  /** Gives a new guest its console's past. @returns what to start it from */
  restore(paths: GuestPaths): MachineSource;
}

function snapshotDirectory(machine: Machine): string {
  const { options, image, qemu, accelerator } = machine;
  const { memoryMiB, cpus, numaNodes = 1 } = options;
  const inputs = [
    MACHINE_VERSION,
    basename(image.directory),
    memoryMiB,
    cpus,
    numaNodes,
    kernelParameters(machine),
    ...(options.devices ?? []),
    qemu.version,
  ];
  return cacheDirectory('snapshots', cacheKey([...inputs, accelerator]));
}

/** The snapshot of a machine of the same image, size and kernel parameters, if there is one. */
export function findSnapshot(machine: Machine): Snapshot | undefined {
  const directory = snapshotDirectory(machine);
  if (!existsSync(directory)) return undefined;
  markUsed(directory);
  return {
    restore: (paths) => {
      copyFileSync(join(directory, 'console.log'), paths.consoleLog);
      return { disk: join(directory, 'disk.qcow2'), diskFormat: 'qcow2', memory: join(directory, 'memory') };
    },
  };
}

/**
 * Keeps a guest that has just booted, for the next one like it. The guest goes on.
 * @throws LabError if QEMU cannot save it
 */
export async function takeSnapshot(machine: Machine, progress: Progress): Promise<void> {
  const paths = guestPaths(machine.options.name);
  progress.step('keeping a snapshot of it');
  await booted(paths.consoleLog);
  const directory = snapshotDirectory(machine);
  const work = `${directory}.${process.pid}`;
  mkdirSync(work, { recursive: true });
  await withQmp(paths.qmp, async (qmp) => {
    await qmp.execute('stop');
    await saveMemory(qmp, join(work, 'memory'));
    await runChecked('cp', ['--reflink=auto', '--sparse=always', paths.disk, join(work, 'disk.qcow2')]);
    copyFileSync(paths.consoleLog, join(work, 'console.log'));
    await qmp.execute('cont');
  });
  if (existsSync(directory)) rmSync(work, { recursive: true });
  else renameSync(work, directory);
}

/** Systemd says so on the console: a login to ask would leave its session in the snapshot. */
async function booted(consoleLog: string): Promise<void> {
  for (
    let waited = 0;
    waited < 120 && !/Reached target .*multi-user/.test(readFileSync(consoleLog, 'latin1'));
    waited++
  ) {
    await sleep(1000);
  }
  await sleep(2000);
}

const migration = z.object({ status: z.string(), 'error-desc': z.string().optional() });

/** QEMU's migration to a file; the machine stands still, so that one pass is all. */
async function saveMemory(qmp: Qmp, file: string): Promise<void> {
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
  await qmp.execute('migrate', { uri: `file:${file}` });
  for (;;) {
    const { status, ...rest } = migration.parse(await qmp.execute('query-migrate'));
    if (status === 'completed') return;
    if (status === 'failed' || status === 'cancelled') {
      throw new LabError(`QEMU cannot save the guest's memory: ${rest['error-desc'] ?? status}`);
    }
    await sleep(100);
  }
}

const runState = z.object({ status: z.string() });

/**
 * Lets a machine that was started from a snapshot run, once its memory is loaded: it was saved standing
 * still.
 */
export async function wake(name: string): Promise<void> {
  await withQmp(guestPaths(name).qmp, async (qmp) => {
    while (runState.parse(await qmp.execute('query-status')).status === 'inmigrate') await sleep(100);
    await qmp.execute('cont');
  });
}

/** A guest that wakes from a snapshot believes that no time has passed. */
export async function setClock(name: string): Promise<void> {
  // Opens the connection, so that the next command takes no time.
  await execChecked(name, ['true'], { timeoutSeconds: LOOK_SECONDS });
  const now = `@${(Date.now() / 1000).toFixed(3)}`;
  await execChecked(name, ['date', '--set', now], { timeoutSeconds: LOOK_SECONDS });
}
