import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type DescMessage, fromBinary, type MessageShape } from '@bufbuild/protobuf';
import { writeImages } from '../../../src/criu/images/index.ts';
import { CoreEntrySchema } from '../../../src/criu/images/proto/gen/core_pb.ts';
import { MmEntrySchema } from '../../../src/criu/images/proto/gen/mm_pb.ts';
import { PagemapEntrySchema, PagemapHeadSchema } from '../../../src/criu/images/proto/gen/pagemap_pb.ts';
import { PstreeEntrySchema } from '../../../src/criu/images/proto/gen/pstree_pb.ts';
import type { PhysicalRun } from '../../../src/model/open-file.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { bytesToText } from '../../../src/system/byte-text.ts';
import { Crit, critPath } from '../crit.ts';
import { areaOf, groupOf, memoryOf, processOf, threadOf } from '../processes.ts';

/** Old memory in which every page is filled with the low byte of its frame number. */
const source = {
  writeRuns(fd: number, runs: readonly PhysicalRun[]): number {
    let written = 0;
    for (const { physical, length } of runs) {
      for (let at = 0; at < length; at += 4096) {
        written += writeSync(fd, Buffer.alloc(4096, ((physical + at) / 4096) & 0xff));
      }
    }
    return written;
  },
};

function entries(path: string): Buffer[] {
  const data = readFileSync(path);
  const found: Buffer[] = [];
  for (let at = 8; at < data.length; ) {
    const size = data.readUInt32LE(at);
    found.push(data.subarray(at + 4, at + 4 + size));
    at += 4 + size;
  }
  return found;
}

function only<Desc extends DescMessage>(schema: Desc, path: string): MessageShape<Desc> {
  const all = entries(path);
  assert.equal(all.length, 1, `${path} has one entry`);
  return fromBinary(schema, all[0]!);
}

describe('images of a process', () => {
  const directory = mkdtempSync(join(tmpdir(), 'otherworld-images-'));
  const path = (name: string) => join(directory, name);
  /** On the CPU time of thread 701. */
  const ofThread = {
    ...{
      id: 3,
      clock: (~701 << 3) | 6,
      notify: 0,
      signal: 14,
      value: 7n,
      notifyThread: undefined,
      overrun: 0,
    },
    ...{ intervalNanoseconds: 0n, remainingNanoseconds: 1_500_000_000n },
  };
  // As the kernel keeps one on CPU time that was set and disarmed.
  const disarmed = { ...ofThread, id: 4, intervalNanoseconds: 1_000_000_000n, remainingNanoseconds: 0n };
  const intervalTimers = {
    real: { intervalMicroseconds: 2_500_000, remainingMicroseconds: 1 },
    virtual: { intervalMicroseconds: 2_500_000, remainingMicroseconds: 0 },
    prof: { intervalMicroseconds: 0, remainingMicroseconds: 0 },
  };
  const runs = listedRuns([
    { address: 0x400000, pages: 2, physical: 0x5000 },
    { address: 0x402000, pages: 1, physical: 0x9000 },
    { address: 0x404000, pages: 1, physical: 0xa000 },
  ]);

  before(() => {
    const memory = memoryOf([areaOf(0x400000, 16, { runs, heap: true, advice: [16] })], {
      overrides: [
        { address: 0x401000, bytes: new Uint8Array(4096).fill(0xee) },
        { address: 0x406000, bytes: new Uint8Array(8192).fill(0xdd) },
      ],
    });
    const pending = (...numbers: number[]) =>
      numbers.map((number) => Uint8Array.of(number, ...new Uint8Array(127)));
    const threads = [threadOf(700, { pendingSignals: pending(12, 5, 12) }), threadOf(701)];
    const sharedPendingSignals = pending(5, 10);
    const process = processOf(700, {
      memory,
      threads,
      sharedPendingSignals,
      posixTimers: [ofThread, disarmed],
      intervalTimers,
    });
    writeImages(groupOf([process]), source, directory);
  });

  after(() => rmSync(directory, { recursive: true }));

  it('are for root only', () => {
    assert.equal(statSync(directory).mode & 0o77, 0);
    for (const name of readdirSync(directory)) assert.equal(statSync(path(name)).mode & 0o77, 0, name);
  });

  it('begin with the magic numbers, the inventory with its own alone', () => {
    assert.equal(readFileSync(path('inventory.img')).readUInt32LE(0), 0x58313116);
    assert.equal(readFileSync(path('mm-700.img')).readUInt32LE(0), 0x54564319);
    assert.equal(readFileSync(path('mm-700.img')).readUInt32LE(4), 0x57492820);
  });

  it('hold one tree whose root has no parent', () => {
    const tree = only(PstreeEntrySchema, path('pstree.img'));
    assert.deepEqual([tree.pid, tree.ppid, tree.threads], [700, 0, [700, 701]]);
  });

  it('hold what belongs to the process in the first thread only', () => {
    const first = only(CoreEntrySchema, path('core-700.img'));
    const second = only(CoreEntrySchema, path('core-701.img'));
    assert.equal(String(first.tc?.comm), 'subject');
    assert.equal(first.tc?.sigactions.length, 62);
    assert.equal(second.tc, undefined);
    assert.equal(String(second.threadCore?.comm), 'thread-701');
    assert.equal(second.threadCore?.schedNice, -3);
    assert.deepEqual(first.threadCore?.creds?.capBnd, [0xffff_ffff, 0x1ff]);
    assert.equal(first.threadInfo?.gpregs?.r15, 15n);
    assert.equal(first.threadInfo?.fpregs?.xmmSpace.length, 64);
    assert.equal(first.threadInfo?.fpregs?.xsave?.ymmhSpace.length, 64);
  });

  it('have no SIGTRAP among the pending signals: CRIU takes each for that of its breakpoint', () => {
    const signals = (list: Uint8Array[] | undefined) => list?.map((info) => info[0]);
    const { tc, threadCore } = only(CoreEntrySchema, path('core-700.img'));
    assert.deepEqual(signals(tc?.signalsS?.signals.map(({ siginfo }) => siginfo)), [10]);
    assert.deepEqual(signals(threadCore?.signalsP?.signals.map(({ siginfo }) => siginfo)), [12, 12]);
  });

  it('name the clock of a thread by the bits of its number, which is negative', () => {
    const { tc } = only(CoreEntrySchema, path('core-700.img'));
    assert.deepEqual(
      tc?.timers?.posix.map(({ itId, clockId, vsec, vnsec }) => [itId, clockId | 0, vsec, vnsec]),
      [
        [3, ofThread.clock, 1n, 500_000_000n],
        [4, ofThread.clock, 0n, 0n],
      ],
    );
  });

  it('have no interval of a timer that is disarmed: CRIU would arm it', () => {
    const { tc } = only(CoreEntrySchema, path('core-700.img'));
    assert.deepEqual(
      tc?.timers?.posix.map(({ isec, insec }) => [isec, insec]),
      [
        [0n, 0n],
        [0n, 0n],
      ],
    );
    assert.deepEqual(
      [tc?.timers?.real, tc?.timers?.virt].map((timer) => [timer?.isec, timer?.iusec, timer?.vusec]),
      [
        [2n, 500_000n, 1n],
        [0n, 0n, 0n],
      ],
    );
  });

  it('have names byte for byte, whether these are UTF-8 or end within a character', () => {
    for (const bytes of [
      Buffer.from('naïve'),
      Buffer.from('ééééééé\xc3', 'latin1'),
      Buffer.from('éééééééé').subarray(0, 15),
    ]) {
      const named = mkdtempSync(join(tmpdir(), 'otherworld-images-'));
      const comm = bytesToText(bytes);
      writeImages(groupOf([processOf(700, { comm, threads: [{ ...threadOf(700), comm }] })]), source, named);
      const { tc, threadCore } = only(CoreEntrySchema, join(named, 'core-700.img'));
      for (const found of [tc?.comm, threadCore?.comm]) assert.deepEqual(Buffer.from(found ?? []), bytes);
      rmSync(named, { recursive: true });
    }
  });

  it('describe areas in bytes, flags and advice', () => {
    const mm = only(MmEntrySchema, path('mm-700.img'));
    const [vma] = mm.vmas;
    assert.equal(vma?.status, (1 << 0) | (1 << 5) | (1 << 9));
    assert.equal(vma?.flags, 0x22);
    assert.equal(vma?.madv, 1n << 16n);
  });

  it('store replaced pages in place of old ones, and further ones in their order', () => {
    const [head, ...rest] = entries(path('pagemap-700.img'));
    const { pagesId } = fromBinary(PagemapHeadSchema, head!);
    const map = rest.map((entry) => fromBinary(PagemapEntrySchema, entry));
    assert.deepEqual(
      map.map(({ vaddr, nrPages }) => [Number(vaddr), nrPages]),
      [
        [0x400000, 3],
        [0x404000, 1],
        [0x406000, 2],
      ],
    );
    const pages = readFileSync(path(`pages-${pagesId}.img`));
    const firstBytes = Array.from({ length: pages.length / 4096 }, (_, i) => pages[i * 4096]);
    assert.deepEqual(firstBytes, [5, 0xee, 9, 0xa, 0xdd, 0xdd]);
  });

  it('are read by crit', {
    skip: critPath() === undefined && 'crit is not installed',
  }, async () => {
    using crit = new Crit();
    for (const name of readdirSync(directory)) {
      if (name.startsWith('pages-') || !name.endsWith('.img')) continue;
      assert.ok(Array.isArray(await crit.decode(path(name))), name);
    }
  });
});

describe('a copy of memory', () => {
  const filled = areaOf(0x400000, 16, {
    runs: listedRuns([{ address: 0x400000, pages: 2, physical: 0x5000 }]),
  });
  const replaced = [{ address: 0x401000, bytes: new Uint8Array(4096) }];
  /** Numbers of the stores of three processes of which two have a copy of the first one's memory. */
  const storesOf = (...memories: readonly Parameters<typeof memoryOf>[1][]): [number[], number] => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-copies-'));
    const processes = memories.map((over, i) =>
      processOf(50 + i, {
        ppid: i === 0 ? 1 : 50,
        sid: 50,
        memory: memoryOf([filled], { id: 1 + i, copyOf: i === 0 ? undefined : 1, ...over }),
      }),
    );
    const { pagesBytes } = writeImages(groupOf(processes), source, directory);
    const maps = processes.map(({ pid }) => entries(join(directory, `pagemap-${pid}.img`)));
    const [first] = maps;
    for (const map of maps) assert.deepEqual(map.slice(1), first?.slice(1));
    rmSync(directory, { recursive: true });
    return [maps.map(([head]) => fromBinary(PagemapHeadSchema, head!).pagesId), pagesBytes];
  };

  it('is stored once', () => {
    assert.deepEqual(storesOf({}, {}, {}), [[1, 1, 1], 2 * 4096]);
  });

  it('is stored by itself if it differs', () => {
    assert.deepEqual(storesOf({ overrides: replaced }, {}, {}), [[1, 2, 2], 4 * 4096]);
    assert.deepEqual(storesOf({}, { overrides: replaced }, {}), [[1, 2, 1], 4 * 4096]);
  });
});

describe('a group', () => {
  const write = (processes: Parameters<typeof groupOf>[0]) => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-group-'));
    const summary = writeImages(groupOf(processes), source, directory);
    const tree = entries(join(directory, 'pstree.img')).map((entry) => fromBinary(PstreeEntrySchema, entry));
    rmSync(directory, { recursive: true });
    return { summary, tree: tree.map(({ pid, ppid }) => [pid, ppid]) };
  };

  it('with one session leader at its head is restored as it is', () => {
    const { summary, tree } = write([processOf(50), processOf(51, { ppid: 50, sid: 50, pgid: 50 })]);
    assert.equal(summary.syntheticRootPid, undefined);
    assert.deepEqual(tree, [
      [50, 0],
      [51, 50],
    ]);
  });

  it('with several roots, or one that leads no session, gets a parent that ends at once', () => {
    const two = write([processOf(50, { sid: 7 }), processOf(51, { sid: 7 })]);
    assert.equal(two.summary.syntheticRootPid, 199_999);
    assert.deepEqual(two.summary.roots, [50, 51]);
    assert.deepEqual(two.tree, [
      [199_999, 0],
      [50, 199_999],
      [51, 199_999],
    ]);
    assert.equal(write([processOf(50, { sid: 7 })]).summary.syntheticRootPid, 199_999);
  });

  it('keeps zombies, which have no memory', () => {
    const zombie = processOf(51, {
      ppid: 50,
      sid: 50,
      state: 'zombie',
      exitCode: 7 << 8,
      threads: [],
      memory: undefined,
    });
    assert.deepEqual(write([processOf(50), zombie]).tree, [
      [50, 0],
      [51, 50],
    ]);
  });
});
