import { closeSync, existsSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { SEGMENTS, SEGMENTS_CONTENT, type SegmentPlan, segmentsSchema } from '../images/plan/segments.ts';
import { openImage, readImageText } from './open-image.ts';
import type { GroupResource } from './resource.ts';

const IPC_CREAT_EXCL = 0o3000;
const SHM_NORESERVE = 0o10000;
const IPC_PRIVATE = 0;
const IPC_RMID = 0;
const IPC_SET = 1;
const IPC_STAT = 2;
const SHM_LOCK = 11;
/** Bits of a mode: the segment is removed, or locked. */
const SHM_DEST = 0o1000;
const SHM_LOCKED = 0o2000;
/**
 * Written before shmget(2), it is the number of the next segment, if it is free (CONFIG_CHECKPOINT_RESTORE).
 */
const NEXT_ID = '/proc/sys/kernel/shm_next_id';
const SYS = { setresuid: 117, setresgid: 119 } as const;
const SAME = -1;

/** Offsets in `struct shmid64_ds` of x86-64 (asm-generic/shmbuf.h and ipcbuf.h), and its size. */
const offsets = {
  key: 0,
  uid: 4,
  gid: 8,
  cuid: 12,
  cgid: 16,
  mode: 20,
  sizeBytes: 48,
  attachments: 88,
} as const;
const DS_BYTES = 112;

const libc = koffi.load('libc.so.6');
const shmget = libc.func('int shmget(int key, unsigned long size, int flags)');
const shmctl = libc.func('int shmctl(int id, int command, void *ds)');
const shmat = libc.func('long shmat(int id, unsigned long address, int flags)');
const shmdt = libc.func('int shmdt(unsigned long address)');
const pread = libc.func('long pread(int fd, unsigned long address, unsigned long count, long offset)');
const syscall = libc.func('long syscall(long number, long first, long second, long third)');

function must(what: string, result: number | bigint): number {
  if (Number(result) < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return Number(result);
}

/** Makes a system call of this thread alone as somebody else: who makes a segment is its creator for good. */
function asUser<T>(uid: number, gid: number, step: () => T): T {
  must('setresgid', syscall(SYS.setresgid, SAME, gid, SAME));
  try {
    must('setresuid', syscall(SYS.setresuid, SAME, uid, SAME));
    try {
      return step();
    } finally {
      must('setresuid', syscall(SYS.setresuid, SAME, 0, SAME));
    }
  } finally {
    must('setresgid', syscall(SYS.setresgid, SAME, 0, SAME));
  }
}

function showKey(key: number): string {
  return `0x${key.toString(16).padStart(8, '0')}`;
}

/** Makes a segment without its content. Throws an Error, and leaves none, if its number or key is taken. */
function create({ id, key, cuid, cgid, mode, sizeBytes, isNotReserved }: SegmentPlan): void {
  const flags = IPC_CREAT_EXCL | mode | (isNotReserved ? SHM_NORESERVE : 0);
  writeFileSync(NEXT_ID, String(id));
  const [made, errno] = asUser(cuid, cgid, () => {
    const result: number = shmget(key | 0, sizeBytes, flags);
    return [result, koffi.errno()];
  });
  if (made === id) return;
  if (made >= 0) {
    shmctl(made, IPC_RMID, null);
    throw new Error('its number is taken');
  }
  // The number waits for the next segment, whoever makes that.
  shmctl(shmget(IPC_PRIVATE, 1, 0), IPC_RMID, null);
  throw new Error(
    errno === constants.errno.EEXIST ? `its key ${showKey(key)} is taken` : `shmget: errno ${errno}`,
  );
}

function stat(id: number): Buffer {
  const ds = Buffer.alloc(DS_BYTES);
  must('shmctl', shmctl(id, IPC_STAT, ds));
  return ds;
}

function setOwner({ id, uid, gid, mode }: SegmentPlan): void {
  const ds = stat(id);
  ds.writeUInt32LE(uid, offsets.uid);
  ds.writeUInt32LE(gid, offsets.gid);
  ds.writeUInt32LE(mode, offsets.mode);
  must('shmctl', shmctl(id, IPC_SET, ds));
}

/** Reads the content from the images straight into the segment. */
function fill({ id, contentOffset, chunks }: SegmentPlan, content: number): void {
  const address = must('shmat', shmat(id, 0, 0));
  try {
    let at = contentOffset;
    for (const { offset, length } of chunks) {
      for (let done = 0; done < length; ) {
        const got = must('pread', pread(content, address + offset + done, length - done, at + done));
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
    if (plan.isLocked) must('shmctl', shmctl(plan.id, SHM_LOCK, null));
  } catch (error) {
    shmctl(plan.id, IPC_RMID, null);
    throw error;
  }
}

/** What of a segment is not as it has to be; the processes that have it attached are there. */
function differences(plan: SegmentPlan): string[] {
  const ds = stat(plan.id);
  const wanted = {
    ...{ key: plan.key, uid: plan.uid, gid: plan.gid, cuid: plan.cuid, cgid: plan.cgid },
    mode: plan.mode | (plan.isLocked ? SHM_LOCKED : 0),
    sizeBytes: plan.sizeBytes,
  };
  const wrong = Object.entries(wanted).flatMap(([name, value]) => {
    const at = offsets[name as keyof typeof wanted];
    const is = name === 'sizeBytes' ? Number(ds.readBigUInt64LE(at)) : ds.readUInt32LE(at);
    return is === value ? [] : [`${name} ${is}, and had ${value}`];
  });
  // An attachment of which parts have other rights counts for several.
  const attached = Number(ds.readBigUInt64LE(offsets.attachments));
  if (attached < plan.attachments) wrong.push(`${attached} attachments, and had ${plan.attachments}`);
  return wrong.map((what) => `the System V shared memory segment ${plan.id} has ${what}`);
}

/** Takes the key away from a segment that was removed; it goes with the last who has it attached. */
function remove({ id }: SegmentPlan): string[] {
  shmctl(id, IPC_RMID, null);
  const isRemoved = (stat(id).readUInt32LE(offsets.mode) & SHM_DEST) !== 0;
  return isRemoved ? [] : [`the System V shared memory segment ${id} cannot be removed`];
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
  const path = join(directory, SEGMENTS);
  if (!existsSync(path)) return { finish: () => [] };
  const plans = segmentsSchema.parse(JSON.parse(readImageText(path)));
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
          `the System V shared memory segment ${plan.id} cannot be made again: ${error instanceof Error ? error.message : error}`,
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
