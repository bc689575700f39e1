import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { ImageDirectory, type PageSource } from '../../../src/criu/images/image.ts';
import { writeSegments } from '../../../src/criu/images/segments.ts';
import type { GroupResource } from '../../../src/criu/restore/resource.ts';
import { makeSegments, removeLeftSegments } from '../../../src/criu/restore/segments.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import type { SharedSegment } from '../../../src/model/segment.ts';
import { memoryAt } from '../../../src/system/libc.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { IPC_RMID, shmat, shmctl, shmdt, shmget } from '../../../src/system/sysv-ipc.ts';

const canMake = process.getuid?.() === 0 && existsSync('/proc/sys/kernel/shm_next_id');
const needsRoot = { skip: canMake ? false : 'only root may make segments under numbers of its choice' };

/** Numbers and places that a system gives only after very many segments, others in each process of tests. */
const ID = 32768 * (20_000 + (process.pid % 10_000)) + 30_000 + 3 * (process.pid % 900);
const KEY = 0xcf57_0000 + (process.pid % 0x1_0000);

const segment: SharedSegment = {
  ...{ id: ID, key: KEY, uid: 1003, gid: 1004, cuid: 1001, cgid: 1002, mode: 0o640 },
  sizeBytes: 3 * PAGE_SIZE + 100,
  ...{ isRemoved: false, isLocked: false, isNotReserved: false, attachments: 0 },
  // The second page is a hole; the last one reaches over the end.
  runs: listedRuns([
    { address: 0, pages: 1, physical: 0x10_0000 },
    { address: 2 * PAGE_SIZE, pages: 2, physical: 0x20_0000 },
  ]),
};

/** Old memory in which each byte tells where it is. */
function oldMemory(physical: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => ((physical + i) * 31 + (physical >>> 12)) & 0xff));
}
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { physical, length }) => sum + writeSync(fd, oldMemory(physical, length)), 0),
};

/** The segments of the system, as /proc/sysvipc/shm has them, by their number. */
function listed(): Map<number, string> {
  const lines = readFileSync('/proc/sysvipc/shm', 'latin1').split('\n').slice(1).filter(Boolean);
  return new Map(
    lines.map((line) => {
      const [key, id, mode, size, , , attachments, uid, gid, cuid, cgid] = line.trim().split(/\s+/);
      const text = `key ${Number(key) >>> 0}, mode ${mode}, ${size} bytes, ${uid}:${gid}, ${cuid}:${cgid}, ${attachments}`;
      return [Number(id), text];
    }),
  );
}

function contentOf(id: number, bytes: number): Buffer {
  const address = shmat(id, 0, 0o10000);
  try {
    return Buffer.from(new Uint8Array(memoryAt(address, bytes)));
  } finally {
    shmdt(address);
  }
}

describe('System V shared memory segments of a group', needsRoot, () => {
  const directories: string[] = [];
  const resources: GroupResource[] = [];
  const write = (...segments: SharedSegment[]): string => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-segments-'));
    directories.push(directory);
    writeSegments({ segments }, new ImageDirectory(directory), source);
    return directory;
  };
  const make = (...segments: SharedSegment[]): GroupResource => {
    const made = makeSegments(write(...segments));
    resources.push(made);
    return made;
  };
  afterEach(() => {
    for (const made of resources.splice(0)) made.finish(false);
    for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
    assert.deepEqual(
      [...listed().keys()].filter((id) => id === ID || id === ID + 1),
      [],
    );
  });

  it('are made under their numbers and keys, with owner, maker, mode and content', () => {
    const other = { ...segment, id: ID + 1, key: 0, sizeBytes: PAGE_SIZE, mode: 0, isLocked: true };
    const made = make(segment, other);
    const size = `${segment.sizeBytes} bytes`;
    assert.equal(listed().get(ID), `key ${KEY}, mode 640, ${size}, 1003:1004, 1001:1002, 0`);
    assert.equal(listed().get(ID + 1), 'key 0, mode 2000, 4096 bytes, 1003:1004, 1001:1002, 0');
    const content = contentOf(ID, 4 * PAGE_SIZE);
    const expected = Buffer.alloc(4 * PAGE_SIZE);
    expected.set(oldMemory(0x10_0000, PAGE_SIZE), 0);
    expected.set(oldMemory(0x20_0000, 2 * PAGE_SIZE), 2 * PAGE_SIZE);
    assert.ok(content.equals(expected));
    assert.deepEqual(made.ready?.(), []);
    made.finish(true);
    assert.ok(listed().has(ID));
    shmctl(ID, IPC_RMID, null);
    shmctl(ID + 1, IPC_RMID, null);
  });

  it('are taken away before the group is made once more, if nobody has them and they are as they were', () => {
    const directory = write(segment);
    makeSegments(directory).finish(true);
    const address = shmat(ID, 0, 0);
    removeLeftSegments(directory);
    assert.ok(listed().has(ID));
    shmdt(address);
    removeLeftSegments(directory);
    assert.ok(!listed().has(ID));
    removeLeftSegments(directory);
    makeSegments(directory).finish(false);
  });

  it('leave this program its own users', () => {
    make(segment);
    assert.match(readFileSync('/proc/thread-self/status', 'latin1'), /^Uid:\t0\t0\t0\t0$/m);
    assert.match(readFileSync('/proc/thread-self/status', 'latin1'), /^CapEff:\t(?!0+$)/m);
  });

  it('go again if the group does not come back', () => {
    make(segment).finish(false);
    assert.ok(!listed().has(ID));
  });

  it('are not made where a key is taken, and none of the others either', () => {
    const taken = shmget((KEY + 1) | 0, PAGE_SIZE, 0o3600);
    const directory = write(segment, { ...segment, id: ID + 1, key: KEY + 1 });
    const expected = `segment ${ID + 1} cannot be made again: its key 0x${(KEY + 1).toString(16)} is taken`;
    assert.throws(() => makeSegments(directory), new RegExp(expected));
    assert.ok(!listed().has(ID) && listed().has(taken));
    // Nor is its number kept for somebody else.
    const next = shmget(0, PAGE_SIZE, 0o600);
    assert.notEqual(next, ID + 1);
    for (const id of [taken, next]) shmctl(id, IPC_RMID, null);
  });

  it('are not made where a number is taken', () => {
    make(segment);
    assert.throws(() => make({ ...segment, key: KEY + 1 }), /cannot be made again: its number is taken/);
    assert.match(listed().get(ID) ?? '', /640/);
  });

  it('are not made of images that are cut off', () => {
    const directory = write(segment);
    truncateSync(join(directory, 'segments.raw'), PAGE_SIZE);
    assert.throws(() => makeSegments(directory), /its content in the images is too short/);
  });

  it('are wrong if nobody has attached them who did, or somebody has changed them', () => {
    const made = make({ ...segment, attachments: 1 });
    assert.deepEqual(made.ready?.(), [
      `the System V shared memory segment ${ID} has 0 attachments, and had 1`,
    ]);
    const address = shmat(ID, 0, 0);
    assert.deepEqual(made.ready?.(), []);
    shmdt(address);
  });

  it('that were removed are removed again once they are attached', () => {
    const made = make({ ...segment, key: 0, isRemoved: true, attachments: 1 });
    const address = shmat(ID, 0, 0);
    assert.deepEqual(made.ready?.(), []);
    assert.match(listed().get(ID) ?? '', /^key 0, mode 1640/);
    shmdt(address);
    assert.ok(!listed().has(ID));
  });

  it('are nothing for a group without any', () => {
    const made = makeSegments(write());
    assert.deepEqual([made.ready?.() ?? [], made.finish(true)], [[], []]);
  });
});
