import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../src/system/thrown.ts';
import { chooseAccelerator } from './accelerator.ts';
import { unlessBrokenOff } from './broken-off.ts';
import { processExists } from './cache.ts';
import { answers, dropConnection } from './channel.ts';
import { consoleTail, panicOnConsole } from './console-log.ts';
import { describeCpus } from './cpu-state.ts';
import { LabError } from './error.ts';
import { furnish } from './furnish.ts';
import { type GuestState, guestNames, guestPaths, guestPid, makeGuestDirectory, readGuest } from './guest.ts';
import { prepareImage } from './image.ts';
import { type GuestOptions, type Machine, startMachine } from './machine.ts';
import { freePort, portIsFree } from './ports.ts';
import type { Progress } from './progress.ts';
import { findQemu } from './qemu.ts';
import { withQmp } from './qmp.ts';
import { findSnapshot, type Snapshot, setClock, takeSnapshot, wake } from './snapshot.ts';

/**
 * Longest time from QEMU's start to sshd's greeting, of the guest's own; a software-emulated guest takes 15
 * to 30 s.
 */
const BOOT_SECONDS = 240;

/**
 * Builds what is missing, boots a fresh guest and waits until it answers.
 * @throws LabError if a guest of this name runs, a port is taken, or the guest does not come up
 */
export async function bootGuest(options: GuestOptions, progress: Progress): Promise<GuestState> {
  const machine = await planMachine(options, progress);
  return startGuest(machine, isQuick(options) ? findSnapshot(machine) : undefined, progress);
}

/** Of each guest that this process has begun to start: its QEMU runs, or has not started. */
const begun = new Map<string, Promise<unknown>>();

/**
 * Starts a planned machine and waits until it answers.
 * @param snapshot what it is to be woken from; without it, it boots
 * @throws LabError if it does not come up
 */
export async function startGuest(
  machine: Machine,
  snapshot: Snapshot | undefined,
  progress: Progress,
): Promise<GuestState> {
  const { options, image, accelerator } = machine;
  const what = `Debian ${options.release}, ${image.kernelRelease}, ${accelerator}`;
  progress.step(`${snapshot ? 'waking' : 'booting'} ${options.name}: ${what}`);
  const paths = makeGuestDirectory(options.name);
  const source = snapshot?.restore(paths) ?? { disk: image.rootDisk, diskFormat: 'raw' };
  const starting = startMachine(machine, paths, source).catch((error: unknown) => {
    rmSync(paths.directory, { recursive: true, force: true });
    throw error;
  });
  begun.set(options.name, starting);
  const state = await starting;
  await comeUp(machine, snapshot, progress).catch((error: unknown) => {
    throw keptForALook(options.name, error);
  });
  return state;
}

async function comeUp(machine: Machine, snapshot: Snapshot | undefined, progress: Progress): Promise<void> {
  const { name } = machine.options;
  if (snapshot) await wake(name);
  if (!(await answers(name, BOOT_SECONDS, () => panicOnConsole(name) !== undefined)))
    throw await whyNotUp(machine);
  if (snapshot) await setClock(name);
  else if (isQuick(machine.options)) await takeSnapshot(machine, progress);
  await furnish(name, machine.options);
}

/** Ends a guest that did not come up. @returns an error with all that can be seen of it */
async function whyNotUp({ options: { name, cpus } }: Machine): Promise<LabError> {
  const where = await describeCpus(name, cpus).catch(messageOf);
  const said = panicOnConsole(name) ?? `nothing answered within ${BOOT_SECONDS} s of its own`;
  const end = consoleTail(name, 60);
  await stopGuest(name);
  return new LabError(`guest ${name} did not come up: ${said}\n${where}\nthe end of its console:\n${end}`);
}

/** A snapshot holds the first disk alone. */
export function isQuick({ quick, disks = 1 }: GuestOptions): boolean {
  return quick === true && disks === 1;
}

/**
 * Decides all that is to be decided before QEMU starts, and builds what is missing for it.
 * @throws LabError if a guest of this name runs, or a port is taken
 */
export async function planMachine(options: GuestOptions, progress: Progress): Promise<Machine> {
  const { name } = options;
  guestPaths(name);
  if (guestPid(name) !== undefined) {
    throw new LabError(`guest ${name} runs already; 'lab down ${name}' ends it`);
  }
  for (const { host } of options.forwards) {
    if (await portIsFree(host)) continue;
    throw new LabError(`port ${host} of this host is taken; choose another for --forward`);
  }
  const qemu = await findQemu(progress);
  const image = await prepareImage(options.release, options.packages, progress);
  const accelerator = await chooseAccelerator(qemu, image, progress);
  return { options, image, qemu, accelerator, sshPort: await freePort() };
}

/** Of a guest that is there, but not as it was to be: its message says how to get rid of it. */
class KeptForALook extends LabError {
  readonly guest: string;

  constructor(guest: string, error: unknown) {
    const hint = `otherworld lab log ${guest}; otherworld lab down ${guest} removes it`;
    const status = error instanceof LabError ? error.exitStatus : 1;
    super(`${messageOf(error)}\nthe guest is kept for a look: ${hint}`, status, error);
    this.guest = guest;
  }
}

/** The error of a guest that is there, but not as it was to be, with how to get rid of it. */
export function keptForALook(name: string, error: unknown): LabError {
  return new KeptForALook(name, error);
}

/**
 * For who does not look at guests: removes the one that was started, but is not as it was to be. A guest that
 * was there before is not touched.
 * @throws what the start failed with
 */
export async function removedOnFailure<T>(
  start: Promise<T>,
  remove: (name: string) => Promise<void> = removeGuest,
): Promise<T> {
  try {
    return await start;
  } catch (error) {
    if (!(error instanceof KeptForALook)) throw error;
    await remove(error.guest);
    throw error.cause;
  }
}

/** Ends a guest at once, as pulling the plug would, and removes what is left of it. */
export async function removeGuest(name: string): Promise<void> {
  readGuest(name);
  await stopGuest(name);
  rmSync(guestPaths(name).directory, { recursive: true, force: true });
}

/**
 * Removes a guest if this process has begun to start it, as soon as its QEMU runs. One of the same name that
 * was there before is not touched.
 * @returns whether there was one
 */
export async function removeBegun(name: string): Promise<boolean> {
  const isThere = await begun.get(name)?.then(
    () => true,
    () => false,
  );
  if (isThere !== true || !guestNames().includes(name)) return false;
  await removeGuest(name);
  return true;
}

/**
 * Does what starts a guest, and something with it. If that is broken off by a signal, takes the guest down
 * and says so.
 */
export function unlessBrokenOffWith<T>(name: string, progress: Progress, work: () => Promise<T>): Promise<T> {
  return unlessBrokenOff(work, async () => {
    progress.step('broken off');
    try {
      progress.step((await removeBegun(name)) ? `${name} is taken down` : 'no guest is left');
    } catch (error) {
      progress.step(`${name} is left (${messageOf(error)}): otherworld lab down ${name} removes it`);
    }
  });
}

async function stopGuest(name: string): Promise<void> {
  await dropConnection(name);
  const pid = guestPid(name);
  if (pid === undefined) return;
  await Promise.race([withQmp(guestPaths(name).qmp, (qmp) => qmp.execute('quit')), sleep(3000)]).catch(
    () => undefined,
  );
  for (let waited = 0; processExists(pid) && waited < 50; waited++) await sleep(100);
  if (processExists(pid)) process.kill(pid, 'SIGKILL');
}
