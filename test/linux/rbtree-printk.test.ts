import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fileStruct } from '../../src/linux/file.ts';
import { mmStruct, rssOf } from '../../src/linux/mm.ts';
import { percpuCounterSum } from '../../src/linux/percpu.ts';
import { findTaskByPid, forEachTask } from '../../src/linux/pid.ts';
import { forEachLogRecord, formatLogRecord } from '../../src/linux/printk.ts';
import { rbTreeForEach, rbTreeForEachEntry } from '../../src/linux/rbtree.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { forEachVma } from '../../src/linux/vma.ts';
import { ContainerError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { pointer, struct } from '../../src/vmcore/view.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

const mapped = struct('vm_area_struct', { vm_mm: pointer });

for (const release of releases) {
  const kernel = openFixture(release);
  const { program } = truthOf(release);
  const withWords = (...words: readonly (readonly [address: bigint, value: bigint])[]): Kernel =>
    openPatched(
      release,
      words.map(([address, value]) => ({ physical: kernel.memory.translate(address), bytes: word(value) })),
    );

  describe(`red-black trees of ${release}`, () => {
    const mm = kernel.bind(mmStruct).at(taskAt(kernel, findTaskByPid(kernel, 1) ?? 0n).mm);
    const busybox = kernel.bind(fileStruct).at(mm.exe_file).f_mapping;
    const root = busybox + BigInt(kernel.layouts.member('address_space', 'i_mmap')?.offsetBytes ?? 0);

    it('have every area in which the file of init is mapped', () => {
      const areas = [...rbTreeForEachEntry(kernel, root, kernel.bind(mapped), 'shared.rb')].map(
        ({ address }) => address,
      );
      const expected: bigint[] = [];
      for (const address of forEachTask(kernel)) {
        const task = taskAt(kernel, address);
        if (task.mm === 0n) continue;
        for (const area of forEachVma(kernel, kernel.bind(mmStruct).at(task.mm))) {
          if (area.vm_file !== 0n && kernel.bind(fileStruct).at(area.vm_file).f_mapping === busybox)
            expected.push(area.address);
        }
      }
      assert.ok(expected.length >= 10);
      assert.deepEqual(areas.sort(), expected.sort());
    });

    it('are refused where a parent is not the one that was come from, or the walk does not end', () => {
      const nodes = [...rbTreeForEach(kernel, root)];
      const [leaf = 0n, other = 0n] = nodes;
      const walk = (damaged: Kernel): number => [...rbTreeForEach(damaged, root)].length;
      assert.throws(() => walk(withWords([leaf, other + 64n])), /the parent of 0x[0-9a-f]+ is not 0x/);
      assert.throws(() => walk(withWords([leaf + 8n, kernel.memory.pointer(root)])), ContainerError);
      assert.throws(() => [...rbTreeForEach(kernel, root, 3)], /does not end within 3 elements/);
    });
  });

  describe(`per-CPU counters of ${release}`, () => {
    it('are the sum over all CPUs', () => {
      if (!kernel.hasMember('mm_struct', 'rss_stat.count')) {
        const mm = kernel.bind(mmStruct).at(taskAt(kernel, findTaskByPid(kernel, program.pid) ?? 0n).mm);
        const anon = percpuCounterSum(kernel, mm.rss_stat + BigInt(kernel.sizeOf('percpu_counter')));
        assert.equal(anon, rssOf(kernel, mm).anon);
        assert.ok(anon >= 1024 + 300);
      }
      const offsets = kernel.cpus.map((cpu) => kernel.perCpu(0n, cpu));
      assert.equal(new Set(offsets).size, kernel.cpus.length);
    });
  });

  describe(`the log of ${release}`, () => {
    const records = [...forEachLogRecord(kernel)];
    const ring = kernel.memory.pointer(kernel.symbol('prb'));
    const member = (structName: string, path: string): bigint =>
      BigInt(kernel.layouts.member(structName, path)?.offsetBytes ?? 0);
    const descRing = ring + member('printk_ringbuffer', 'desc_ring');
    const textRing = ring + member('printk_ringbuffer', 'text_data_ring');
    const descs = kernel.memory.pointer(descRing + member('prb_desc_ring', 'descs'));
    const data = kernel.memory.pointer(textRing + member('prb_data_ring', 'data'));
    const sizeBits = BigInt(kernel.memory.u32(textRing + member('prb_data_ring', 'size_bits')));
    const countBits = kernel.memory.u32(descRing + member('prb_desc_ring', 'count_bits'));
    const headId = kernel.memory.u64(descRing + member('prb_desc_ring', 'head_id'));
    const last = descs + BigInt.asUintN(countBits, headId) * BigInt(kernel.sizeOf('prb_desc'));
    const begin = last + member('prb_desc', 'text_blk_lpos.begin');

    it('has all records in order, with level, facility and time', () => {
      assert.deepEqual(
        records.map(({ sequence }) => sequence),
        records.map((_, i) => i),
      );
      const marker = records.at(-1);
      assert.equal(marker?.text, 'otherworld: marker line');
      assert.equal(marker?.facility, 1);
      assert.ok((marker?.timeNanoseconds ?? 0n) > 1_000_000_000n);
      assert.ok(records.some(({ level }) => level === 7));
      assert.ok(records.some(({ device }) => device.startsWith('+') || device.includes(':')));
    });

    it('has the record that goes over the end of the ring, and not the one that it overwrote', () => {
      const lap = 5n << sizeBits;
      const text = word(0x2064_6570_7061_7257n);
      const wrapped = withWords(
        [begin, lap - 16n],
        [begin + 8n, lap + 16n],
        [data, BigInt.asUintN(62, headId)],
        [data + 8n, text.readBigUInt64LE()],
      );
      const found = [...forEachLogRecord(wrapped)];
      assert.equal(found.at(-1)?.text, 'Wrapped ');
      assert.equal(found.length, records.length - 1);
      assert.equal(found[0]?.sequence, 1);
    });

    it('leaves out a record that is being written, and one without text is empty', () => {
      const state = kernel.memory.u64(last);
      assert.equal(
        [...forEachLogRecord(withWords([last, BigInt.asUintN(62, state)]))].length,
        records.length - 1,
      );
      const empty = [...forEachLogRecord(withWords([begin, 3n], [begin + 8n, 3n]))].at(-1);
      assert.equal(empty?.text, '');
    });

    it('is refused if the ring says that it is larger than any', () => {
      const size = textRing + member('prb_data_ring', 'size_bits');
      assert.throws(
        () => [...forEachLogRecord(withWords([size, kernel.memory.u64(size) | 0x80n]))],
        /printk ring .* is damaged/,
      );
      const tail = descRing + member('prb_desc_ring', 'tail_id');
      assert.throws(
        () => [...forEachLogRecord(withWords([tail, 12345n]))],
        /printk ring .* it holds \d+ records/,
      );
    });

    it('is printed as dmesg prints it', () => {
      const [record] = records;
      assert.ok(record !== undefined);
      const printed = formatLogRecord({ ...record, timeNanoseconds: 12_345_678_901n, text: 'one\ntwo' });
      assert.equal(printed, '[   12.345678] one\n               two');
    });
  });
}
