import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { describe, it } from 'node:test';
import { mapsInspection } from '../../src/inspect/maps.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { readLog } from '../../src/linux/printk.ts';
import { taskAt, taskStruct } from '../../src/linux/sched.ts';
import { AddressError, FormatError } from '../../src/vmcore/errors.ts';
import { Kcore } from '../../src/vmcore/kcore.ts';
import { KcoreMemory } from '../../src/vmcore/kcore-memory.ts';
import { livingKernel } from '../../src/vmcore/open.ts';
import { runningVmcoreinfo } from '../../src/vmcore/take-profile.ts';
import { madeKcore } from '../arm/made-kcore.ts';
import { openFixture, releases, scratch, truthOf } from './fixtures.ts';
import { livingFixture } from './living-fixture.ts';

const DIRECT_MAP = 0xffff_8880_0000_0000n;

/** A byte for each place, other than that of its neighbours. */
function pattern(bytes: number, seed: number): Buffer {
  return Buffer.from(Array.from({ length: bytes }, (_, i) => (i * 7 + (i >> 8) + seed) & 0xff));
}

/** A file that is larger than these is more than a memory keeps of it. */
const LIMITS = { kept: 4 << 20, recent: 1 << 20 };

function memoryOf(...parts: readonly (readonly [physical: number, content: Buffer])[]): KcoreMemory {
  const path = scratch('made-kcore');
  const segments = parts.map(([physical, content]) => ({
    ...{ virtual: DIRECT_MAP + BigInt(physical), physical: BigInt(physical), content },
  }));
  writeFileSync(path, madeKcore(segments));
  return new KcoreMemory(new Kcore(path), LIMITS);
}

function bytesAt(memory: KcoreMemory, physical: number, length: number): Buffer {
  return Buffer.from(memory.view(physical, length));
}

for (const release of releases) {
  describe(`the living kernel of ${release}`, () => {
    it('is read like a dump of it', () => {
      const dead = openFixture(release);
      const living = livingKernel(livingFixture(release).path);
      const kernel = living.look();
      assert.equal(kernel.isAlive, true);
      assert.equal(dead.isAlive, false);
      assert.equal(kernel.release, dead.release);
      assert.deepEqual(listProcesses(kernel).rows, listProcesses(dead).rows);
      assert.deepEqual(readLog(kernel), readLog(dead));
      const { pid } = truthOf(release).program;
      assert.equal(mapsInspection(kernel, pid).text(), mapsInspection(dead, pid).text());
      living.close();
    });

    it('has no registers of its CPUs, whatever note there is', () => {
      assert.deepEqual(livingKernel(livingFixture(release).path).look().cpuNotes, []);
    });

    it('stays as it was read until it is looked at again', () => {
      const file = livingFixture(release);
      const living = livingKernel(file.path);
      const { pid } = truthOf(release).program;
      const first = living.look();
      const find = (kernel: typeof first) =>
        listProcesses(kernel).rows.find((row) => row.pid === pid)?.comm ?? '';
      const before = find(first);
      const address = first.symbol('init_task');
      const { comm } = taskAt(first, address);
      const at = first.memory.translate(
        address + BigInt(first.layouts.member('task_struct', 'comm')?.offsetBytes ?? 0),
      );
      file.change(at, Buffer.from('renamed\0'));
      assert.equal(taskAt(first, address).comm, comm);
      const { offsetOf } = first.bind(taskStruct);
      const now = first.memory.readNow(address + BigInt(offsetOf('comm')), 8);
      assert.equal(now.toString('latin1'), 'renamed\0');
      assert.equal(taskAt(first, address).comm, comm);
      assert.equal(taskAt(living.look(), address).comm, 'renamed');
      assert.equal(find(living.look()), before);
      living.close();
    });
  });
}

describe('memory of /proc/kcore', () => {
  const low = pattern(0x3000, 1);
  const high = pattern(0x5000, 2);

  it('gives bytes within a page, over its end, and over the end of a range', () => {
    const memory = memoryOf([0x1000, low], [0x4000, high], [0x10_0000, high]);
    assert.deepEqual(bytesAt(memory, 0x1010, 16), low.subarray(0x10, 0x20));
    assert.deepEqual(bytesAt(memory, 0x1ff8, 16), low.subarray(0xff8, 0x1008));
    assert.deepEqual(bytesAt(memory, 0x3ff8, 16), Buffer.concat([low.subarray(0x2ff8), high.subarray(0, 8)]));
    assert.deepEqual(bytesAt(memory, 0x4000, 0x5000), high);
    assert.equal(memory.has(0x1000, 0x8000), true);
    assert.equal(memory.has(0x8ff0, 0x20), false);
    assert.equal(memory.contiguous(0x3ff8, 16), undefined);
    memory.withView(0x10_0ff0, 0x20, (bytes) =>
      assert.deepEqual(Buffer.from(bytes), high.subarray(0xff0, 0x1010)),
    );
    memory.close();
  });

  it('knows no address outside of its ranges', () => {
    const memory = memoryOf([0x1000, low]);
    assert.throws(() => memory.view(0, 8), AddressError);
    assert.throws(() => memory.view(0x3ff8, 16), /is no memory that the kernel shows/);
    assert.throws(() => memory.withView(0x4000, 1, () => undefined), AddressError);
    memory.close();
  });

  it('leaves what it has given as it was when much else is read', () => {
    const much = Buffer.alloc(2 * LIMITS.kept, pattern(0x1000, 3));
    for (let at = 0; at < much.length; at += 0x1000) much.writeUInt32LE(at, at);
    const memory = memoryOf([0x10_0000, much]);
    const first = memory.view(0x10_0000, 0x1000);
    for (let at = 0; at < much.length; at += 0x1000) {
      const { data, offset } = memory.window(0x10_0000 + at, 4);
      assert.equal(data.getUint32(offset, true), much.readUInt32LE(at));
    }
    assert.deepEqual(Buffer.from(first), much.subarray(0, 0x1000));
    memory.close();
  });

  it('keeps what it has read first, however much else is read, and only then reads it anew', () => {
    const path = scratch('changing-kcore');
    const content = Buffer.alloc(2 * LIMITS.kept);
    writeFileSync(path, madeKcore([{ virtual: DIRECT_MAP, physical: 0n, content }]));
    const kcore = new Kcore(path);
    const memory = new KcoreMemory(kcore, LIMITS);
    const first = () => bytesAt(memory, 0, 4).toString();
    const before = first();
    const fd = openSync(path, 'r+');
    writeSync(fd, 'new!', Number(kcore.segments[0]?.fileOffset ?? assert.fail()));
    closeSync(fd);
    for (let at = 0x1000; at < content.length; at += 0x1000) memory.window(at, 4);
    assert.equal(first(), before);
    memory.forget();
    assert.equal(first(), 'new!');
    memory.close();
  });

  it('reads anew what was looked at since a note was begun, and nothing else', () => {
    const path = scratch('noted-kcore');
    const content = madeKcore([{ virtual: DIRECT_MAP, physical: 0n, content: low }]);
    writeFileSync(path, content);
    const memory = new KcoreMemory(new Kcore(path), LIMITS);
    const read = () => [0x10, 0x1010, 0x2010].map((at) => bytesAt(memory, at, 4).toString('hex'));
    const before = read();
    const outer = memory.noteReads();
    bytesAt(memory, 0x10, 4);
    const inner = memory.noteReads();
    bytesAt(memory, 0x1010, 4);
    writeFileSync(path, madeKcore([{ virtual: DIRECT_MAP, physical: 0n, content: high }]));
    const changed = [0x10, 0x1010].map((at) => high.toString('hex', at, at + 4));
    assert.deepEqual(read(), before);
    inner.end();
    outer.end();
    assert.deepEqual(read(), before);
    const note = memory.noteReads();
    bytesAt(memory, 0x1010, 4);
    note.end();
    note.forget();
    assert.deepEqual(read(), [before[0], changed[1], before[2]]);
    outer.forget();
    assert.deepEqual(read().slice(0, 2), changed);
    memory.close();
  });

  it('is written out as it is, and not read any more when it is closed', () => {
    const memory = memoryOf([0x1000, low], [0x4000, high]);
    const path = scratch('written');
    const fd = openSync(path, 'w');
    assert.equal(memory.writeRuns(fd, [{ physical: 0x2000, length: 0x3000 }]), 0x3000);
    closeSync(fd);
    assert.deepEqual(readFileSync(path), Buffer.concat([low.subarray(0x1000), high.subarray(0, 0x1000)]));
    memory.close();
    assert.throws(() => memory.view(0x1000, 8), /cannot be read/);
  });

  it('is refused with a sentence where the kernel does not say where it is, or shows nothing', () => {
    const path = scratch('no-info');
    const content = madeKcore([]);
    content.write('XMCOREINFO', content.indexOf('VMCOREINFO\0'), 'latin1');
    writeFileSync(path, content);
    assert.throws(() => livingKernel(path), /does not say where it is \(VMCOREINFO/);
    assert.throws(
      () => livingKernel(scratch('none')),
      /this kernel does not show its memory: it has no such file/,
    );
    assert.throws(() => livingKernel(scratch('none')), FormatError);
  });
});

describe('VMCOREINFO of the running kernel', () => {
  it('is empty where the kernel does not show it, and no fault is taken for that', () => {
    const path = scratch('no-kcore');
    writeFileSync(path, 'this is no ELF file');
    assert.equal(runningVmcoreinfo(path), '');
    assert.equal(runningVmcoreinfo(scratch('not-there')), '');
    assert.throws(() => runningVmcoreinfo('no\0path'));
  });
});
