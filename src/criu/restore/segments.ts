import { closeSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { checked } from '../../system/libc.ts';
import {
  IPC_CREAT_EXCL,
  IPC_PRIVATE,
  IPC_RMID,
  IPC_SET,
  IPC_STAT,
  preadTo,
  SHM_DEST,
  SHM_LOCK,
  SHM_LOCKED,
  SHM_NORESERVE,
  SHMID_DS,
  shmat,
  shmctl,
  shmdt,
  shmget,
} from '../../system/sysv-ipc.ts';
import { messageOf } from '../../system/thrown.ts';
import { SEGMENTS, SEGMENTS_CONTENT, type SegmentPlan, segmentsSchema } from '../images/plan/segments.ts';
import { makeIpc, permissionDifferences, setPermissions } from './ipc-object.ts';
import { openImage, readImageText } from './open-image.ts';
import type { GroupResource } from './resource.ts';

/** Makes a segment without its content. Throws an Error, and leaves none, if its number or key is taken. */
function create(plan: SegmentPlan): void {
  const { key, mode, sizeBytes, isNotReserved } = plan;
  const flags = IPC_CREAT_EXCL | mode | (isNotReserved ? SHM_NORESERVE : 0);
  makeIpc(plan, {
    call: 'shmget',
    nextId: '/proc/sys/kernel/shm_next_id',
    make: () => shmget(key | 0, sizeBytes, flags),
    makeAny: () => shmget(IPC_PRIVATE, 1, 0),
    remove: (id) => shmctl(id, IPC_RMID, null),
  });
}

function stat(id: number): Buffer {
  const ds = Buffer.alloc(SHMID_DS.bytes);
  checked('shmctl', shmctl(id, IPC_STAT, ds));
  return ds;
}

function isThere(id: number): boolean {
  return shmctl(id, IPC_STAT, Buffer.alloc(SHMID_DS.bytes)) >= 0;
}

function attachmentsOf(id: number): number {
  return Number(stat(id).readBigUInt64LE(SHMID_DS.attachments));
}

function setOwner(plan: SegmentPlan): void {
  const ds = stat(plan.id);
  setPermissions(plan, SHMID_DS, ds);
  checked('shmctl', shmctl(plan.id, IPC_SET, ds));
}

/** Reads the content from the images straight into the segment. */
function fill({ id, contentOffset, chunks }: SegmentPlan, content: number): void {
  const address = checked('shmat', shmat(id, 0, 0));
  try {
    let at = contentOffset;
    for (const { offset, length } of chunks) {
      for (let done = 0; done < length; ) {
        const got = checked('pread', preadTo(content, address + offset + done, length - done, at + done));
        if (got === 0) throw new Error('its content in the images is too short');
        done += got;
      }
      at += length;
    }
  } finally {
    shmdt(address);
  }
}

function make(plan: SegmentPlan, content: number): void {
  create(plan);
  try {
    fill(plan, content);
    setOwner(plan);
    if (plan.isLocked) checked('shmctl', shmctl(plan.id, SHM_LOCK, null));
  } catch (error) {
    shmctl(plan.id, IPC_RMID, null);
    throw error;
  }
}

/** What of a segment is not as it has to be; the processes that have it attached are there. */
function differences(plan: SegmentPlan): string[] {
  const ds = stat(plan.id);
  const mode = plan.mode | (plan.isLocked ? SHM_LOCKED : 0);
  const wrong = permissionDifferences({ ...plan, mode }, SHMID_DS, ds);
  const size = Number(ds.readBigUInt64LE(SHMID_DS.sizeBytes));
  if (size !== plan.sizeBytes) wrong.push(`sizeBytes ${size}, and had ${plan.sizeBytes}`);
  // An attachment of which parts have other rights counts for several.
  const attached = Number(ds.readBigUInt64LE(SHMID_DS.attachments));
  if (attached < plan.attachments) wrong.push(`${attached} attachments, and had ${plan.attachments}`);
  return wrong.map((what) => `the System V shared memory segment ${plan.id} has ${what}`);
}

/** Takes the key away from a segment that was removed; it goes with the last who has it attached. */
function remove({ id }: SegmentPlan): string[] {
  shmctl(id, IPC_RMID, null);
  const isRemoved = (stat(id).readUInt32LE(SHMID_DS.mode) & SHM_DEST) !== 0;
  return isRemoved ? [] : [`the System V shared memory segment ${id} cannot be removed`];
}

function plansIn(directory: string): SegmentPlan[] {
  const path = join(directory, SEGMENTS);
  return existsSync(path) ? segmentsSchema.parse(JSON.parse(readImageText(path))) : [];
}

/**
 * Takes away the segments that were made for a group whose processes are gone, so that it can be restored
 * once more: they outlive them. Leaves those that somebody has attached, or that are not as they were made.
 */
export function removeLeftSegments(directory: string): void {
  for (const plan of plansIn(directory)) {
    const unused = { ...plan, attachments: 0 };
    if (isThere(plan.id) && attachmentsOf(plan.id) === 0 && differences(unused).length === 0)
      shmctl(plan.id, IPC_RMID, null);
  }
}

/**
 * Makes the System V shared memory segments that a group's images name, under their numbers and keys, with
 * their content. Throws an Error if one cannot be made, most of all because its number or key is taken; there
 * is none then.
 *
 * @returns a resource that takes the segments away if the group does not come back, and finds them right when
 * it does
 */
export function makeSegments(directory: string): GroupResource {
  const plans = plansIn(directory);
  if (plans.length === 0) return { finish: () => [] };
  const made: SegmentPlan[] = [];
  const drop = (): void => {
    for (const { id } of made) shmctl(id, IPC_RMID, null);
  };
  const content = openImage(join(directory, SEGMENTS_CONTENT));
  try {
    for (const plan of plans) {
      try {
        make(plan, content);
      } catch (error) {
        throw new Error(
          `the System V shared memory segment ${plan.id} cannot be made again: ${messageOf(error)}`,
          { cause: error },
        );
      }
      made.push(plan);
    }
  } catch (error) {
    drop();
    throw error;
  } finally {
    closeSync(content);
  }
  return {
    ready: () => plans.flatMap((plan) => [...differences(plan), ...(plan.isRemoved ? remove(plan) : [])]),
    finish: (isRestored) => {
      if (!isRestored) drop();
      return [];
    },
  };
}
