import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { ifThere } from '../src/system/proc.ts';
import { messageOf } from '../src/system/thrown.ts';
import { cacheDirectory, cacheKey, makeCacheDirectory, markUsed } from './cache.ts';
import { dropConnection, execChecked, LOOK_SECONDS } from './channel.ts';
import { runChecked } from './command.ts';
import { LabError } from './error.ts';
import { type GuestPaths, guestPaths, guestPid } from './guest.ts';
import { guestClock } from './guest-time.ts';
import type { GuestImage } from './image.ts';
import { type GuestOptions, kernelParameters, type Machine, type MachineSource } from './machine.ts';
import type { Progress } from './progress.ts';
import type { Qemu } from './qemu.ts';
import { type Qmp, withQmp } from './qmp.ts';
import { ARMED, sweepSnapshots } from './snapshot-sweep.ts';

/** Raise when QEMU's arguments change: a memory image fits only the machine that it was taken from. */
const MACHINE_VERSION = 1;

/** Raise when what the lab does to arm a guest changes; what it arms it with is in the installation's key. */
const ARMING_VERSION = 1;

/** A guest that had booted, or was armed: disk, memory and console. */
export interface Snapshot {
  /** Gives a new guest its console's past. @returns what to start it from */
  restore(paths: GuestPaths): MachineSource;
}

/** A machine as far as its memory depends on it. */
export type MachineKind = Pick<Machine, 'accelerator'> & {
  readonly options: Pick<
    GuestOptions,
    'memoryMiB' | 'cpus' | 'crashKernelMiB' | 'append' | 'numaNodes' | 'devices'
  >;
  readonly image: Pick<GuestImage, 'directory' | 'identity'>;
  readonly qemu: Pick<Qemu, 'version'>;
};

/** A key of the image, size, devices and kernel parameters of a machine, and of what emulates it. */
export function machineKey(machine: MachineKind): string {
  const { options, image, qemu, accelerator } = machine;
  const { memoryMiB, cpus, numaNodes = 1 } = options;
  const inputs = [
    MACHINE_VERSION,
    basename(image.directory),
    image.identity,
    memoryMiB,
    cpus,
    numaNodes,
    kernelParameters(machine),
    ...(options.devices ?? []),
    qemu.version,
  ];
  return cacheKey([...inputs, accelerator]);
}

/**
 * Where a machine's snapshots are, below `snapshots`: the one of its boot in a directory of its own, and in
 * that those of the guests that were armed after it, each named after the installation that armed it.
 */
export function snapshotParts(machine: MachineKind, installation?: string): string[] {
  const booted = machineKey(machine);
  return installation === undefined
    ? [booted]
    : [booted, `${ARMED}${cacheKey([ARMING_VERSION, installation])}`];
}

function snapshotDirectory(...parts: readonly string[]): string {
  return cacheDirectory('snapshots', ...parts);
}

/**
 * The snapshot of a machine of the same image, size and kernel parameters, if there is one.
 * @param installation key of the installation that it has to be armed with; undefined: as it has booted
 */
export function findSnapshot(machine: Machine, installation?: string): Snapshot | undefined {
  const parts = snapshotParts(machine, installation);
  const directory = snapshotDirectory(...parts);
  if (!existsSync(join(directory, 'memory'))) return undefined;
  // The disk of an armed guest may be an overlay over that of the boot. Somebody may remove it right now.
  const isThere = ifThere(() => {
    for (let depth = parts.length; depth > 0; depth--) markUsed(snapshotDirectory(...parts.slice(0, depth)));
    return true;
  });
  if (!isThere) return undefined;
  return {
    restore: (paths) => {
      copyFileSync(join(directory, 'console.log'), paths.consoleLog);
      return { disk: join(directory, 'disk.qcow2'), diskFormat: 'qcow2', memory: join(directory, 'memory') };
    },
  };
}

/**
 * Keeps a guest that has just booted, or has just been armed, for the next one like it. The guest goes on,
 * also if it cannot be kept, which is only said.
 * @param installation key of the installation that it is armed with
 * @throws LabError if the guest does not go on
 */
export async function takeSnapshot(
  machine: Machine,
  progress: Progress,
  installation?: string,
): Promise<void> {
  progress.step(`keeping a snapshot of it${installation === undefined ? '' : ', armed'}`);
  try {
    await keepSnapshot(machine, installation);
  } catch (error) {
    progress.step(`no snapshot of it is kept: ${messageOf(error)}`);
  }
  // Opens the connection again, and so tells whether the guest goes on.
  await setClock(machine.options.name);
}

async function keepSnapshot(machine: Machine, installation?: string): Promise<void> {
  const { name } = machine.options;
  const paths = guestPaths(name);
  if (installation === undefined) await booted(paths.consoleLog);
  else await loggedOut(name);
  const directory = snapshotDirectory(...snapshotParts(machine, installation));
  sweepSnapshots(makeCacheDirectory('snapshots'));
  const work = `${directory}.${process.pid}`;
  try {
    // Not without the directory of its boot: that one could not be put into its place any more.
    mkdirSync(work);
    await withQmp(paths.qmp, (qmp) => whileStopped(qmp, () => saveGuest(qmp, paths, work)));
    if (!existsSync(directory)) renameSync(work, directory);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Holds a machine still during `work`, and lets it go on whatever comes of that. */
export async function whileStopped(qmp: Pick<Qmp, 'execute'>, work: () => Promise<void>): Promise<void> {
  await qmp.execute('stop');
  try {
    await work();
  } finally {
    await qmp.execute('cont');
  }
}

async function saveGuest(qmp: Qmp, paths: GuestPaths, work: string): Promise<void> {
  await saveMemory(qmp, join(work, 'memory'));
  await runChecked('cp', ['--reflink=auto', '--sparse=always', paths.disk, join(work, 'disk.qcow2')]);
  copyFileSync(paths.consoleLog, join(work, 'console.log'));
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

/** Longest time for sshd and logind to end a session, of the guest's own. */
const LOGOUT_SECONDS = 120;

const LOGGED_OUT = 'otherworld lab: nobody is logged in';

/**
 * Ends the connection to the guest, whose other end would not be in the snapshot, and waits until its session
 * has ended. What looks for that is a service: it belongs to no session.
 * @throws LabError if somebody else is logged in
 */
async function loggedOut(name: string): Promise<void> {
  // Twice, because the kernel may write its own lines into the middle of one.
  const say = `printf '\\n%s\\n' '${LOGGED_OUT}' '${LOGGED_OUT}' >/dev/ttyS0`;
  const none = 'sessions=$(loginctl list-sessions --no-legend) && [ -z "$sessions" ]';
  const script = `until ${none}; do sleep 0.2; done; ${say}`;
  const limit = `--property=RuntimeMaxSec=${LOGOUT_SECONDS}`;
  const service = ['systemd-run', '--quiet', '--collect', limit, 'sh', '-c', script];
  await execChecked(name, service, { timeoutSeconds: LOOK_SECONDS });
  await dropConnection(name);
  const elapsed = guestClock(guestPid(name) ?? 0);
  while (!readFileSync(guestPaths(name).consoleLog, 'latin1').includes(LOGGED_OUT)) {
    if (elapsed() > LOGOUT_SECONDS)
      throw new LabError(`sessions of ${name} go on: no snapshot can be taken of it`);
    await sleep(200);
  }
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
