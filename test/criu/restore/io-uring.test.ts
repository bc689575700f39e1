// Rings in a process that sleeps, as this machine's kernel makes them.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, suite, test } from 'node:test';
import type { PlannedRing } from '../../../src/criu/images/plan/restore-plan.ts';
import { type Freezer, whileHeld } from '../../../src/criu/restore/held-process.ts';
import { makeRings } from '../../../src/criu/restore/io-uring.ts';
import type { GiveLimit } from '../../../src/criu/restore/limit.ts';
import { areasOf, type Tracee } from '../../../src/criu/restore/tracee.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { limitOf, setLimit } from '../../../src/system/process-settings.ts';

const SYS = { close: 3, dup2: 33, setup: 425, enter: 426 } as const;
const PARAMS_BYTES = 120;
const [CQE32, SQE128, SINGLE_ISSUER, DEFER_TASKRUN] = [1 << 11, 1 << 10, 1 << 12, 1 << 13];
const COMPLETIONS_AT = 0x800_0000;
const SQ = ['sqHead', 'sqTail', 'sqMask', 'sqEntries', 'sqFlags', 'sqDropped', 'sqArray'] as const;
const CQ = ['cqHead', 'cqTail', 'cqMask', 'cqEntries', 'cqOverflow', 'cqes', 'cqFlags'] as const;
const MARK = 0xa5;
const RLIMIT_NOFILE = 7;

/** Who sleeps need not be frozen. */
const nowhere: Freezer = {
  takeOut: () => undefined,
  putBack: () => undefined,
  frozen: () => Promise.resolve(),
};

/** Makes a ring and takes it away again: where it has what. Undefined where nobody may make any. */
function probe(tracee: Tracee, entries: number, setup: number): PlannedRing['offsets'] | undefined {
  const params = Buffer.alloc(PARAMS_BYTES);
  params.writeUInt32LE(setup, 8);
  return tracee.withBytes(params, (address, read) => {
    const fd = tracee.call(tracee.pid, SYS.setup, entries, address);
    if (fd < 0) return undefined;
    assert.equal(tracee.call(tracee.pid, SYS.close, fd), 0);
    const told = read();
    const named = (names: readonly string[], at: number) =>
      names.map((name, i) => [name, told.readUInt32LE(at + 4 * i)] as const);
    return Object.fromEntries([...named(SQ, 40), ...named(CQ, 80)]) as PlannedRing['offsets'];
  });
}

suite('rings of a process', () => {
  let child: ChildProcess;
  let pid = 0;
  let directory = '';

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'otherworld-rings-'));
    child = spawn('/bin/sleep', ['60'], { stdio: 'ignore' });
    await new Promise((resolve) => child.once('spawn', resolve));
    pid = child.pid ?? 0;
    while (!readFileSync(`/proc/${pid}/stat`, 'latin1').includes('(sleep) S'))
      await new Promise((resolve) => setImmediate(resolve));
  });
  afterEach(async () => {
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    rmSync(directory, { recursive: true });
  });

  const memoryAt = (address: number, length: number): Buffer => {
    const memory = openSync(`/proc/${pid}/mem`, 'r');
    try {
      const bytes = Buffer.alloc(length);
      readSync(memory, bytes, 0, length, address);
      return bytes;
    } finally {
      closeSync(memory);
    }
  };
  const fdinfo = (fd: number): ReadonlyMap<string, string> =>
    new Map(
      readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'latin1')
        .split('\n')
        .flatMap((line) => [line.split(/:\s*/)])
        .map(([name = '', value = '']) => [name, value]),
    );

  /** A ring of two pages, as one that has counted, at a place that is free, with a content of its own. */
  const planned = (
    tracee: Tracee,
    fd: number,
    rings: number,
    over: Partial<PlannedRing> & Pick<PlannedRing, 'requests' | 'completions' | 'unread'>,
  ): PlannedRing | undefined => {
    const setup = over.setup ?? 0;
    const [sqEntries, cqEntries] = [8, 16];
    const offsets = probe(tracee, sqEntries, setup);
    if (offsets === undefined) return undefined;
    // Its stand-in.
    assert.equal(tracee.call(pid, SYS.dup2, 0, fd), fd);
    const content = Buffer.alloc(2 * PAGE_SIZE, MARK);
    const word = (at: number, value: number): unknown => content.writeUInt32LE(value >>> 0, at);
    word(offsets.sqHead, over.requests);
    word(offsets.sqTail, over.requests + 2);
    word(offsets.cqTail, over.completions);
    word(offsets.cqHead, over.completions - over.unread);
    for (const at of [offsets.sqDropped, offsets.sqFlags, offsets.cqOverflow, offsets.cqFlags]) word(at, 0);
    word(offsets.sqMask, sqEntries - 1);
    word(offsets.cqMask, cqEntries - 1);
    word(offsets.sqEntries, sqEntries);
    word(offsets.cqEntries, cqEntries);
    // Requests that the kernel has not taken yet do nothing either.
    content.fill(0, PAGE_SIZE);
    if (offsets.sqArray !== 0) content.fill(0, offsets.sqArray, offsets.sqArray + 4 * sqEntries);
    const name = `io-uring-${fd}`;
    writeFileSync(join(directory, name), content);
    return {
      ...{ pid, descriptors: [{ fd, closeOnExec: false }], setup, sqEntries, cqEntries, offsets },
      areas: [
        { start: rings, bytes: PAGE_SIZE, offset: 0, part: 'rings', advice: [] },
        {
          ...{ start: rings + PAGE_SIZE, bytes: PAGE_SIZE, offset: 0x1000_0000, part: 'entries' },
          advice: [10],
        },
      ],
      ...{ content: name, ringsBytes: PAGE_SIZE, entriesBytes: PAGE_SIZE },
      ...over,
    };
  };

  /** Places of pages that are free: none of them is where the kernel would choose. */
  const freePlaces = (): number[] => {
    const stack = areasOf(pid).find(({ name }) => name === '[stack]');
    const heap = areasOf(pid).find(({ name }) => name === '[heap]');
    assert.ok(stack !== undefined && heap !== undefined);
    return [heap.end + 64 * PAGE_SIZE, stack.start - 4096 * PAGE_SIZE, 0x1234_5600_0000];
  };

  const seen = (ring: PlannedRing): readonly (string | undefined)[] => {
    const info = fdinfo(ring.descriptors[0]?.fd ?? -1);
    return ['SqHead', 'SqTail', 'CachedSqHead', 'CqHead', 'CqTail', 'CachedCqTail'].map((name) =>
      info.get(name),
    );
  };

  test('are at their numbers and places, have counted as much, and go on', (t) => {
    const before = areasOf(pid).length;
    whileHeld(pid, nowhere, (tracee) => {
      const [low = 0, high = 0, middle = 0] = freePlaces();
      const rings = [
        planned(tracee, 20, low, { requests: 1000, completions: 1000, unread: 0 }),
        planned(tracee, 21, high, { requests: 1003, completions: 18, unread: 10 }),
        planned(tracee, 22, middle, { requests: 20, completions: 5, unread: 8, setup: SQE128 | CQE32 }),
        planned(tracee, 23, middle + 16 * PAGE_SIZE, {
          ...{ requests: 77, completions: 77, unread: 3, setup: SINGLE_ISSUER | DEFER_TASKRUN, issuer: pid },
        }),
      ];
      if (rings.some((ring) => ring === undefined)) return t.skip('no io_uring may be made here');
      const made = rings.filter((ring) => ring !== undefined);
      makeRings(directory, tracee, made, () => undefined);
      for (const ring of made) {
        const { requests, completions, unread, content, offsets } = ring;
        const head = (completions - unread) >>> 0;
        const expected = [requests, requests + 2, requests, head, completions, completions];
        assert.deepEqual(seen(ring), expected.map(String));
        const start = ring.areas[0]?.start ?? 0;
        assert.deepEqual(memoryAt(start, 2 * PAGE_SIZE), readFileSync(join(directory, content)));
        // Two requests were waiting to be taken: their completions are behind those that nobody has read.
        assert.equal(tracee.call(pid, SYS.enter, ring.descriptors[0]?.fd ?? -1, 2, 0, 0, 0, 0), 2);
        const after = memoryAt(start, PAGE_SIZE);
        assert.equal(after.readUInt32LE(offsets.cqTail), completions + 2);
        assert.equal(after.readUInt32LE(offsets.cqOverflow), 0);
        for (let i = 0; i < unread; i++) {
          const at = offsets.cqes + ((head + i) % ring.cqEntries) * ((ring.setup & CQE32) === 0 ? 16 : 32);
          assert.equal(after[at], MARK, `${i} of ${unread}`);
        }
      }
    });
    assert.equal(areasOf(pid).length, before + 8);
  });

  test('have no place for more completions than there is behind those that are unread', (t) => {
    whileHeld(pid, nowhere, (tracee) => {
      const ring = planned(tracee, 20, 0x1234_5600_0000, { requests: 24, completions: 24, unread: 16 });
      if (ring === undefined) return t.skip('no io_uring may be made here');
      makeRings(directory, tracee, [ring], () => undefined);
      assert.equal(tracee.call(pid, SYS.enter, 20, 2, 0, 0, 0, 0), 2);
      const after = memoryAt(ring.areas[0]?.start ?? 0, PAGE_SIZE);
      assert.equal(after.readUInt32LE(ring.offsets.cqTail), 24);
      for (let i = 0; i < 16; i++) assert.equal(after[ring.offsets.cqes + 16 * i], MARK, `${i}`);
    });
  });

  test('have all that was in them, where a program has mapped them twice, once not as a whole', (t) => {
    whileHeld(pid, nowhere, (tracee) => {
      const [entries, start] = [1024, 0x1234_5600_0000];
      const one = {
        ...{ requests: 7, completions: 7, unread: 0 },
        sqEntries: entries,
        cqEntries: 2 * entries,
      };
      const [ringsBytes, entriesBytes] = [10 * PAGE_SIZE, 16 * PAGE_SIZE];
      const offsets = probe(tracee, entries, 0);
      const ring = planned(tracee, 20, start, one);
      if (ring === undefined || offsets === undefined) return t.skip('no io_uring may be made here');
      const content = Buffer.alloc(ringsBytes + entriesBytes, MARK);
      const head = { sqHead: 7, sqTail: 7, cqHead: 7, cqTail: 7, sqEntries: entries, cqEntries: 2 * entries };
      for (const [name, value] of Object.entries(head))
        content.writeUInt32LE(value, offsets[name as keyof typeof head]);
      writeFileSync(join(directory, ring.content), content);
      // Those of completions are mapped as far as they go, at the lower place.
      const completions = ringsBytes - PAGE_SIZE;
      const areas: PlannedRing['areas'] = [
        { start, bytes: completions, offset: COMPLETIONS_AT, part: 'rings', advice: [] },
        { start: start + completions, bytes: entriesBytes, offset: 0x1000_0000, part: 'entries', advice: [] },
        {
          start: start + completions + entriesBytes,
          bytes: ringsBytes,
          offset: 0,
          part: 'rings',
          advice: [],
        },
      ];
      const plan = { ...ring, offsets, areas, ringsBytes, entriesBytes };
      makeRings(directory, tracee, [plan], () => undefined);
      const [lower, middle, upper] = areas.map((area) => memoryAt(area.start, area.bytes));
      assert.deepEqual(upper, content.subarray(0, ringsBytes));
      assert.deepEqual(lower, content.subarray(0, completions));
      assert.deepEqual(middle, content.subarray(ringsBytes));
    });
  });

  test('are at numbers that their process might not have any more', (t) => {
    whileHeld(pid, nowhere, (tracee) => {
      const ring = planned(tracee, 20, 0x1234_5600_0000, { requests: 1, completions: 1, unread: 0 });
      if (ring === undefined) return t.skip('no io_uring may be made here');
      const { hard } = limitOf(pid, RLIMIT_NOFILE);
      setLimit(pid, RLIMIT_NOFILE, { soft: 3n, hard });
      // Nobody needs more than that here, or a right to give it.
      const give: GiveLimit = (of, resource, { soft }) => {
        if (resource === RLIMIT_NOFILE) setLimit(of, resource, { soft: soft < hard ? soft : hard, hard });
      };
      makeRings(directory, tracee, [ring], give);
      assert.equal(fdinfo(20).get('SqHead'), '1');
      assert.equal(limitOf(pid, RLIMIT_NOFILE).soft, 3n);
    });
  });

  test('are an error where something else is mapped by now', (t) => {
    whileHeld(pid, nowhere, (tracee) => {
      const heap = areasOf(pid).find(({ name }) => name === '[heap]')?.start ?? 0;
      const ring = planned(tracee, 20, heap, { requests: 1, completions: 1, unread: 0 });
      if (ring === undefined) return t.skip('no io_uring may be made here');
      assert.throws(() => makeRings(directory, tracee, [ring], () => undefined), /something else is mapped/);
    });
  });
});
