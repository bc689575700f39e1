import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { ImageDirectory } from '../../../src/criu/images/image.ts';
import { writeSemaphores } from '../../../src/criu/images/semaphores.ts';
import type { Freezer } from '../../../src/criu/restore/held-process.ts';
import { changeSemaphores, undoOperations } from '../../../src/criu/restore/held-semaphores.ts';
import type { GroupResource } from '../../../src/criu/restore/resource.ts';
import { removeLeft } from '../../../src/criu/restore/resources.ts';
import {
  makeSemaphores,
  removeLeftSemaphores,
  usedSemaphores,
} from '../../../src/criu/restore/semaphores.ts';
import type { SemaphoreSet } from '../../../src/model/semaphore-set.ts';
import {
  GETPID,
  GETVAL,
  IPC_RMID,
  SEM_UNDO,
  SETVAL,
  sembufs,
  semctl,
  semget,
  semop,
} from '../../../src/system/sysv-ipc.ts';
import { processOf } from '../processes.ts';

const canMake = process.getuid?.() === 0 && existsSync('/proc/sys/kernel/sem_next_id');
const needsRoot = { skip: canMake ? false : 'only root may make semaphores under numbers of its choice' };

/** Numbers and places that a system gives only after very many sets, others in each process of tests. */
const ID = 32768 * (20_000 + (process.pid % 10_000)) + 30_000 + 3 * (process.pid % 900);
const KEY = 0xcf58_0000 + (process.pid % 0x1_0000);
const HIGHEST = 32767;

const set: SemaphoreSet = {
  ...{ id: ID, key: KEY, uid: 1003, gid: 1004, cuid: 1001, cgid: 1002, mode: 0o640 },
  semaphores: [3, 0, HIGHEST, 7].map((value) => ({ value, lastPid: undefined })),
  isUsed: false,
  undos: [],
};

/** Nobody is frozen here: who is held stands still. */
const freezer: Freezer = {
  takeOut: () => undefined,
  putBack: () => undefined,
  frozen: async () => undefined,
};

/** The sets of the system, as /proc/sysvipc/sem has them, by their number. */
function listed(): Map<number, string> {
  const lines = readFileSync('/proc/sysvipc/sem', 'latin1').split('\n').slice(1).filter(Boolean);
  return new Map(
    lines.map((line) => {
      const [key, id, mode, count, uid, gid, cuid, cgid, used] = line.trim().split(/\s+/);
      const isUsed = used === '0' ? 'unused' : 'used';
      return [
        Number(id),
        `key ${Number(key) >>> 0}, mode ${mode}, ${count}, ${uid}:${gid}, ${cuid}:${cgid}, ${isUsed}`,
      ];
    }),
  );
}

function valuesOf(count = 4): number[] {
  return Array.from({ length: count }, (_, i) => semctl(ID, i, GETVAL, 0));
}

describe('operations that are to be undone', () => {
  /** As the kernel does them (perform_atomic_semop_slow); throws if one would wait or is out of range. */
  const perform = (value: number, adjustment: number): { value: number; undone: number; calls: number } => {
    let [now, undone] = [value, 0];
    const calls = undoOperations(0, value, adjustment);
    for (const operations of calls) {
      for (const { change, flags } of operations) {
        now += change;
        assert.ok(now >= 0 && now <= HIGHEST && change >= -32768 && change <= HIGHEST, `${now} by ${change}`);
        if ((flags & SEM_UNDO) !== 0) undone -= change;
      }
    }
    return { value: now, undone, calls: calls.length };
  };

  it('leave the value, at whatever it is', () => {
    for (const value of [0, 1, 2, 16383, 16384, 20_000, HIGHEST - 1, HIGHEST]) {
      for (const adjustment of [1, -1, 7, -7, 20_000, -20_000, HIGHEST, -HIGHEST, -32768]) {
        const { calls, ...result } = perform(value, adjustment);
        assert.deepEqual(result, { value, undone: adjustment });
        assert.ok(calls <= 3, `${calls} calls`);
      }
    }
  });
});

describe('System V semaphores of a group', needsRoot, () => {
  const directories: string[] = [];
  const resources: GroupResource[] = [];
  const children: ChildProcess[] = [];
  const write = (pids: readonly number[], ...semaphores: SemaphoreSet[]): string => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-semaphores-'));
    directories.push(directory);
    writeSemaphores(
      { semaphores, processes: pids.map((pid) => processOf(pid)) },
      new ImageDirectory(directory),
    );
    return directory;
  };
  const make = (pids: readonly number[], ...sets: SemaphoreSet[]): GroupResource => {
    const made = makeSemaphores(write(pids, ...sets));
    resources.push(made);
    return made;
  };
  /** A process that sleeps: its number, and how it is ended. */
  const sleeper = async (uid = 0): Promise<{ pid: number; end: () => Promise<void> }> => {
    const child = spawn('sleep', ['1000'], { stdio: 'ignore', uid });
    children.push(child);
    await once(child, 'spawn');
    const end = async (): Promise<void> => {
      child.kill('SIGKILL');
      await once(child, 'exit');
    };
    return { pid: child.pid ?? 0, end };
  };
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    for (const made of resources.splice(0)) made.finish(false);
    for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
    assert.ok(!listed().has(ID));
  });

  it('are made under their numbers and keys, with owner, maker, mode and values', async () => {
    const made = make([], set);
    await made.held?.(freezer);
    assert.equal(listed().get(ID), `key ${KEY}, mode 640, 4, 1003:1004, 1001:1002, unused`);
    assert.deepEqual(valuesOf(), [3, 0, HIGHEST, 7]);
    assert.deepEqual(made.ready?.(), []);
    made.finish(true);
    assert.ok(listed().has(ID));
  });

  it('have been used if they were', async () => {
    const made = make([], { ...set, isUsed: true });
    await made.held?.(freezer);
    assert.match(listed().get(ID) ?? '', /, used$/);
    assert.deepEqual([valuesOf(), made.ready?.()], [[3, 0, HIGHEST, 7], []]);
  });

  it('are undone at the end of who had changed them', async () => {
    const [one, two] = [await sleeper(), await sleeper()];
    const undos = [
      { pid: one.pid, semaphore: 0, adjustment: 2 },
      { pid: one.pid, semaphore: 1, adjustment: 5 },
      { pid: two.pid, semaphore: 2, adjustment: -30_000 },
      { pid: two.pid, semaphore: 0, adjustment: -1 },
    ];
    const made = make([one.pid, two.pid], { ...set, isUsed: true, undos });
    await made.held?.(freezer);
    assert.deepEqual([valuesOf(), made.ready?.()], [[3, 0, HIGHEST, 7], []]);
    assert.equal(listed().get(ID), `key ${KEY}, mode 640, 4, 1003:1004, 1001:1002, used`);
    await one.end();
    assert.deepEqual(valuesOf(), [5, 5, HIGHEST, 7]);
    await two.end();
    assert.deepEqual(valuesOf(), [4, 5, HIGHEST - 30_000, 7]);
  });

  it('are changed by processes of any user, and meanwhile by nobody else', async () => {
    const users = [1005, 1006];
    const [one, two] = [await sleeper(users[0]), await sleeper(users[1])];
    const undos = [{ pid: one.pid, semaphore: 0, adjustment: 2 }];
    const semaphores = set.semaphores.map(({ value }) => ({ value, lastPid: two.pid }));
    const made = make([one.pid, two.pid], { ...set, isUsed: true, undos, semaphores });
    const seen = [listed().get(ID)];
    await made.held?.({
      ...freezer,
      frozen: async () => {
        seen.push(listed().get(ID));
      },
    });
    const of = (owner: string, used: string) => `key ${KEY}, mode 600, 4, ${owner}, 1001:1002, ${used}`;
    assert.deepEqual(seen, [of('1001:1002', 'unused'), of('1005:1002', 'used'), of('1006:1002', 'used')]);
    assert.equal(listed().get(ID), `key ${KEY}, mode 640, 4, 1003:1004, 1001:1002, used`);
    assert.equal(semctl(ID, 0, GETPID, 0), two.pid);
    assert.deepEqual(made.ready?.(), []);
  });

  it('tell who changed them last, by an operation or without one', async () => {
    const [one, two] = [await sleeper(), await sleeper()];
    const last = (...pids: (number | undefined)[]) =>
      set.semaphores.map(({ value }, i) => ({ value, lastPid: pids[i] }));
    const pidsOf = (): number[] => [0, 1, 2, 3].map((i) => semctl(ID, i, GETPID, 0));
    const undos = [{ pid: one.pid, semaphore: 3, adjustment: 1 }];
    const semaphores = last(one.pid, two.pid, one.pid, two.pid);
    const made = make([one.pid, two.pid], { ...set, isUsed: true, undos, semaphores });
    await made.held?.(freezer);
    assert.deepEqual(pidsOf(), [one.pid, two.pid, one.pid, two.pid]);
    assert.deepEqual([valuesOf(), made.ready?.()], [[3, 0, HIGHEST, 7], []]);
    made.finish(false);
    const unused = make([one.pid], { ...set, semaphores: last(one.pid, undefined, undefined, two.pid) });
    await unused.held?.(freezer);
    // The other one is none of the group's processes, and nobody has changed the second one.
    assert.deepEqual(pidsOf(), [one.pid, 0, process.pid, process.pid]);
    assert.deepEqual([valuesOf(), unused.ready?.()], [[3, 0, HIGHEST, 7], []]);
  });

  it('are not made if a process that is to change them is gone', async () => {
    const one = await sleeper();
    await one.end();
    const undos = [{ pid: one.pid, semaphore: 0, adjustment: 2 }];
    const made = make([one.pid], { ...set, isUsed: true, undos });
    await assert.rejects(
      async () => made.held?.(freezer),
      new RegExp(`^Error: the System V semaphores of process ${one.pid} cannot be given back: `),
    );
  });

  it('are not made where a key or a number is taken', () => {
    const taken = semget(KEY | 0, 1, 0o3600);
    const expected = `set ${ID} cannot be made again: its key 0x${KEY.toString(16)} is taken`;
    assert.throws(() => make([], set), new RegExp(expected));
    semctl(taken, 0, IPC_RMID, 0);
    make([], set);
    assert.throws(() => make([], { ...set, key: KEY + 1 }), /cannot be made again: its number is taken/);
    // Nor is the number kept for somebody else.
    const next = semget(0, 1, 0o600);
    assert.notEqual(next, ID + 1);
    semctl(next, 0, IPC_RMID, 0);
  });

  it('are wrong if somebody has changed them', async () => {
    const made = make([], set);
    await made.held?.(freezer);
    semctl(ID, 1, SETVAL, 9);
    const operation = [{ semaphore: 0, change: 1, flags: 0 }];
    semop(ID, sembufs(operation), 1);
    assert.deepEqual(made.ready?.(), [
      `the System V semaphore set ${ID} has value 4 of semaphore 0, and had 3`,
      `the System V semaphore set ${ID} has value 9 of semaphore 1, and had 0`,
      `the System V semaphore set ${ID} has been used, and had not`,
    ]);
  });

  it('are taken away before the group is made once more', async () => {
    const directory = write([], set);
    const made = makeSemaphores(directory);
    await made.held?.(freezer);
    made.finish(true);
    assert.deepEqual(usedSemaphores(directory), []);
    removeLeft(directory);
    assert.ok(!listed().has(ID));
    removeLeft(directory);
  });

  it('are taken away too if processes of the group have undone at their end what they had to', async () => {
    const one = await sleeper();
    const undos = [{ pid: one.pid, semaphore: 2, adjustment: -5 }];
    const directory = write([one.pid], { ...set, isUsed: true, undos });
    const made = makeSemaphores(directory);
    await made.held?.(freezer);
    made.finish(true);
    await one.end();
    assert.deepEqual(usedSemaphores(directory), []);
    semctl(ID, 2, SETVAL, HIGHEST);
    assert.deepEqual(usedSemaphores(directory), [`the System V semaphore set ${ID} has been used since`]);
    removeLeftSemaphores(directory);
  });

  it('are left to whoever has used them since, and the group is not made once more', async () => {
    const directory = write([], set);
    const made = makeSemaphores(directory);
    await made.held?.(freezer);
    made.finish(true);
    const one = await sleeper();
    const used = `the System V semaphore set ${ID} has been used since`;
    // It changes the set, and leaves its value as it is.
    const other = { ...set, isUsed: true, undos: [], semaphores: [{ value: 3, lastPid: one.pid }] };
    await changeSemaphores([other], freezer, () => undefined);
    assert.deepEqual([valuesOf()[0], usedSemaphores(directory)], [3, [used]]);
    assert.throws(() => removeLeft(directory), { message: `it is not restored again: ${used}` });
    assert.ok(listed().has(ID));
    removeLeftSemaphores(directory);
  });

  it('are nothing for a group without any', () => {
    const made = makeSemaphores(write([]));
    assert.deepEqual([made.ready?.(), made.finish(true)], [[], []]);
  });
});
