import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { checked } from '../../system/libc.ts';
import {
  GETNCNT,
  GETVAL,
  GETZCNT,
  IPC_CREAT_EXCL,
  IPC_PRIVATE,
  IPC_RMID,
  IPC_SET,
  IPC_STAT,
  SEMID_DS,
  SETVAL,
  semctl,
  semctlOn,
  semget,
} from '../../system/sysv-ipc.ts';
import { messageOf } from '../../system/thrown.ts';
import { SEMAPHORES, type SemaphoreSetPlan, semaphoresSchema } from '../images/plan/semaphores.ts';
import { changeSemaphores } from './held-semaphores.ts';
import { makeIpc, permissionDifferences, setPermissions } from './ipc-object.ts';
import { readImageText } from './open-image.ts';
import type { GroupResource } from './resource.ts';

/** While the processes change a set they may; its own mode is the last that it gets. */
const MODE_MEANWHILE = 0o666;

function remove(id: number): void {
  semctl(id, 0, IPC_RMID, 0);
}

function stat(id: number): Buffer {
  const ds = Buffer.alloc(SEMID_DS.bytes);
  checked('semctl', semctlOn(id, 0, IPC_STAT, ds));
  return ds;
}

/** Makes a set with its values. Throws an Error, and leaves none, if its number or key is taken. */
function make(plan: SemaphoreSetPlan): void {
  const { id, key, semaphores } = plan;
  makeIpc(plan, {
    call: 'semget',
    nextId: '/proc/sys/kernel/sem_next_id',
    make: () => semget(key | 0, semaphores.length, IPC_CREAT_EXCL | MODE_MEANWHILE),
    makeAny: () => semget(IPC_PRIVATE, 1, 0),
    remove,
  });
  try {
    for (const [i, { value }] of semaphores.entries())
      if (value > 0) checked('semctl', semctl(id, i, SETVAL, value));
  } catch (error) {
    remove(id);
    throw error;
  }
}

function setOwner(plan: SemaphoreSetPlan): void {
  const ds = stat(plan.id);
  setPermissions(plan, SEMID_DS, ds);
  checked('semctl', semctlOn(plan.id, 0, IPC_SET, ds));
}

/** What of a set is not as it was made. */
function madeDifferences(plan: SemaphoreSetPlan): string[] {
  const ds = stat(plan.id);
  const wrong = permissionDifferences(plan, SEMID_DS, ds);
  const count = Number(ds.readBigUInt64LE(SEMID_DS.semaphores));
  if (count !== plan.semaphores.length) wrong.push(`${count} semaphores, and had ${plan.semaphores.length}`);
  return wrong;
}

/** What of a set is not as it has to be before the processes run. */
function differences(plan: SemaphoreSetPlan): string[] {
  const wrong = madeDifferences(plan);
  for (const [i, { value }] of plan.semaphores.entries()) {
    const is = semctl(plan.id, i, GETVAL, 0);
    if (is !== value) wrong.push(`value ${is} of semaphore ${i}, and had ${value}`);
  }
  const isUsed = stat(plan.id).readBigInt64LE(SEMID_DS.lastOperation) !== 0n;
  if (isUsed !== plan.isUsed) wrong.push(isUsed ? 'been used, and had not' : 'not been used, and had');
  return wrong.map((what) => `the System V semaphore set ${plan.id} has ${what}`);
}

function plansIn(directory: string): SemaphoreSetPlan[] {
  const path = join(directory, SEMAPHORES);
  return existsSync(path) ? semaphoresSchema.parse(JSON.parse(readImageText(path))) : [];
}

function hasWaiters({ id, semaphores }: SemaphoreSetPlan): boolean {
  return semaphores.some((_, i) => [GETNCNT, GETZCNT].some((command) => semctl(id, i, command, 0) !== 0));
}

/**
 * Takes away the sets that were made for a group whose processes are gone, so that it can be restored once
 * more: they outlive them. Leaves those that somebody waits for, or that are no longer those that were made.
 */
export function removeLeftSemaphores(directory: string): void {
  for (const plan of plansIn(directory)) {
    const isThere = semctlOn(plan.id, 0, IPC_STAT, Buffer.alloc(SEMID_DS.bytes)) >= 0;
    if (isThere && madeDifferences(plan).length === 0 && !hasWaiters(plan)) remove(plan.id);
  }
}

/**
 * Makes the sets of System V semaphores that a group's images name, under their numbers and keys, with their
 * values. Throws an Error if one cannot be made, most of all because its number or key is taken; there is
 * none then.
 *
 * @returns a resource that has the held processes say what is to be undone when they end, takes the sets away
 * if the group does not come back, and finds them right when it does
 */
export function makeSemaphores(directory: string): GroupResource {
  const plans = plansIn(directory);
  const made: SemaphoreSetPlan[] = [];
  const drop = (): void => {
    for (const { id } of made) remove(id);
  };
  for (const plan of plans) {
    try {
      make(plan);
    } catch (error) {
      drop();
      throw new Error(`the System V semaphore set ${plan.id} cannot be made again: ${messageOf(error)}`, {
        cause: error,
      });
    }
    made.push(plan);
  }
  return {
    held: async (freezer) => {
      await changeSemaphores(plans, freezer);
      for (const plan of plans) setOwner(plan);
    },
    ready: () => plans.flatMap(differences),
    finish: (isRestored) => {
      if (!isRestored) drop();
      return [];
    },
  };
}
