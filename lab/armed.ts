import { isQuick, keptForALook, planMachine, startGuest } from './boot.ts';
import { withLock } from './cache.ts';
import type { GuestState } from './guest.ts';
import { armGuest, buildInstallation, type Installation, installOtherworld } from './install.ts';
import type { GuestOptions, Machine } from './machine.ts';
import type { Progress } from './progress.ts';
import { findSnapshot, snapshotParts, takeSnapshot } from './snapshot.ts';

/**
 * Boots a fresh guest in which Otherworld, as its sources are now, is installed and armed as configured by
 * default. With `quick` it is woken, armed already, from a snapshot of a guest of the same machine and
 * installation; if there is none, it becomes the snapshot for the next one.
 * @throws LabError as `bootGuest` does, or if the guest cannot be armed; it is kept for a look then
 */
export async function bootArmedGuest(options: GuestOptions, progress: Progress): Promise<GuestState> {
  const installation = await buildInstallation();
  const machine = await planMachine(options, progress);
  if (!isKeptArmed(options)) return armAnew(machine, installation, progress);
  const armed = findSnapshot(machine, installation.key);
  if (armed) return startGuest(machine, armed, progress);
  return withLock(
    snapshotParts(machine, installation.key).join('-'),
    async () => {
      // While this has waited, the snapshot may have been made, and the port been taken.
      const machine = await planMachine(options, progress);
      const armed = findSnapshot(machine, installation.key);
      if (armed) return startGuest(machine, armed, progress);
      const state = await armAnew(machine, installation, progress);
      await takeSnapshot(machine, progress, installation.key).catch((error: unknown) => {
        throw keptForALook(options.name, error);
      });
      return state;
    },
    () => progress.step('waiting for another guest like it, which is being armed'),
  );
}

async function armAnew(
  machine: Machine,
  installation: Installation,
  progress: Progress,
): Promise<GuestState> {
  const { options } = machine;
  const state = await startGuest(machine, isQuick(options) ? findSnapshot(machine) : undefined, progress);
  try {
    await installAndArm(options.name, installation, progress);
  } catch (error) {
    throw keptForALook(options.name, error);
  }
  return state;
}

async function installAndArm(name: string, installation: Installation, progress: Progress): Promise<void> {
  progress.step('installing Otherworld');
  await installOtherworld(name, installation);
  progress.step('arming');
  await armGuest(name);
}

/** Whether a guest may start from, and become, an armed one: it has nothing of its own but its machine. */
export function isKeptArmed(options: GuestOptions): boolean {
  return isQuick(options) && options.users !== true && !options.lastPid;
}
