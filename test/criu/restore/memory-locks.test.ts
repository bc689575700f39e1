import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { MemoryLocks } from '../../../src/criu/images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from '../../../src/criu/restore/held-process.ts';
import type { GiveLimit } from '../../../src/criu/restore/limit.ts';
import { lockMemory } from '../../../src/criu/restore/memory-locks.ts';
import type { Tracee } from '../../../src/criu/restore/tracee.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { limitOf, type ResourceLimit, setLimit } from '../../../src/system/process-settings.ts';

const [SYS_mmap, SYS_capset, SYS_mlockall] = [9, 126, 151];
const MCL_FUTURE = 2;
const EPERM = 1;
const CAPABILITIES_VERSION = 0x2008_0522;
const PRIVATE_ANONYMOUS = 0x22;
const RLIMIT_MEMLOCK = 8;
/** -1 as an int. */
const NO_FILE = 0xffff_ffff;

/** Who sleeps need not be frozen. */
const nowhere: Freezer = {
  takeOut: () => undefined,
  putBack: () => undefined,
  frozen: () => Promise.resolve(),
};

/** Who runs the tests may be root without the right to raise a limit. */
const unlimited: GiveLimit = () => undefined;
const upTo =
  (hard: bigint): GiveLimit =>
  (pid, resource, limit) =>
    setLimit(pid, resource, { soft: limit.soft < hard ? limit.soft : hard, hard });

describe('memory that is mapped from now on', () => {
  let child: ChildProcess;
  let pid = 0;

  beforeEach(async () => {
    child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
    await new Promise((resolve) => child.once('spawn', resolve));
    pid = child.pid ?? 0;
    // What it has of its own is mapped when it sleeps.
    while (!readFileSync(`/proc/${pid}/stat`, 'latin1').includes('(sleep) S')) await nextTurn();
  });
  afterEach(async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  });

  const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
  const lockedKiB = (): number =>
    Number(/^VmLck:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
  const residentKiB = (address: number): number => {
    const smaps = readFileSync(`/proc/${pid}/smaps`, 'latin1');
    const area = smaps.slice(smaps.indexOf(`${address.toString(16)}-`));
    return Number(/^Rss:\s+(\d+)/m.exec(area)?.[1]);
  };
  const map = (tracee: Tracee): number =>
    tracee.call(pid, SYS_mmap, 0, 4 * PAGE_SIZE, 3, PRIVATE_ANONYMOUS, NO_FILE, 0);
  const giveUpCapabilities = (tracee: Tracee): void => {
    const header = Buffer.alloc(8);
    header.writeUInt32LE(CAPABILITIES_VERSION);
    const result = tracee.withBytes(Buffer.concat([header, Buffer.alloc(24)]), (address) =>
      tracee.call(pid, SYS_capset, address, address + 8),
    );
    assert.equal(result, 0);
  };

  test('is locked again, at once or page by page, and nothing that was there', () => {
    whileHeld(pid, nowhere, (tracee) => {
      lockMemory(tracee, { pid, onFault: [], future: 'at-once' }, unlimited);
      assert.equal(lockedKiB(), 0);
      assert.deepEqual([residentKiB(map(tracee)), lockedKiB()], [16, 16]);
      lockMemory(tracee, { pid, onFault: [], future: 'on-fault' }, unlimited);
      assert.deepEqual([residentKiB(map(tracee)), lockedKiB()], [0, 32]);
    });
  });

  test('areas are locked page by page, and no page is brought into memory', () => {
    whileHeld(pid, nowhere, (tracee) => {
      const start = map(tracee);
      lockMemory(tracee, { pid, onFault: [{ start, bytes: 2 * PAGE_SIZE }] }, unlimited);
      assert.deepEqual([residentKiB(start), lockedKiB()], [0, 8]);
    });
  });

  test('is locked again by who may lock none any more, and keeps its limit', () => {
    const none = { soft: 0n, hard: 8192n };
    setLimit(pid, RLIMIT_MEMLOCK, none);
    whileHeld(pid, nowhere, (tracee) => {
      giveUpCapabilities(tracee);
      assert.equal(tracee.call(pid, SYS_mlockall, MCL_FUTURE), -EPERM);
      lockMemory(tracee, { pid, onFault: [], future: 'on-fault' }, upTo(none.hard));
    });
    assert.deepEqual(limitOf(pid, RLIMIT_MEMLOCK), none);
  });

  test('is an error if the kernel refuses, and the limit is what it was', () => {
    const before = limitOf(pid, RLIMIT_MEMLOCK);
    const given: ResourceLimit[] = [];
    const refused = (locks: Omit<MemoryLocks, 'pid'>) => () =>
      lockMemory({ pid, call: () => -12 }, { pid, ...locks }, (_pid, _resource, limit) => given.push(limit));
    assert.throws(refused({ onFault: [], future: 'at-once' }), /mlockall fails \(ENOMEM/);
    assert.throws(refused({ onFault: [{ start: 4096, bytes: 4096 }] }), /mlock2 of 0x1000 fails \(ENOMEM/);
    assert.deepEqual([given[1], given[3]], [before, before]);
    assert.equal(given[0]?.soft, 2n ** 64n - 1n);
  });
});
