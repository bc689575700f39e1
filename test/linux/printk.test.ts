import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  formatLogEntry,
  formatLogRecord,
  type LogGap,
  lastLogRecord,
  readLog,
} from '../../src/linux/printk.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, withoutPage, word } from '../vmcore/fixtures.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const withWords = (...words: readonly (readonly [address: bigint, value: bigint])[]): Kernel =>
    openPatched(
      release,
      words.map(([address, value]) => ({ physical: kernel.memory.translate(address), bytes: word(value) })),
    );

  describe(`the log of ${release}`, () => {
    const { records, damage } = readLog(kernel);
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
    const infos = kernel.memory.pointer(descRing + member('prb_desc_ring', 'infos'));
    /** Address of the `printk_info` of a record, counted from the end if negative. */
    const info = (record: number): bigint =>
      infos +
      BigInt(Math.floor(record < 0 ? records.length + record : record) * kernel.sizeOf('printk_info'));
    const textLength = member('printk_info', 'text_len');

    it('has all records in order, with level, facility and time', () => {
      assert.deepEqual(
        records.map(({ sequence }) => sequence),
        records.map((_, i) => i),
      );
      const marker = records.find(({ text }) => text === 'otherworld: marker line');
      assert.equal(marker?.facility, 1);
      assert.ok((marker?.timeNanoseconds ?? 0n) > 1_000_000_000n);
      assert.ok(records.some(({ level }) => level === 7));
      assert.ok(records.some(({ device }) => device.startsWith('+') || device.includes(':')));
    });

    it('has the record that goes over the end of the ring, and not the one that it overwrote', () => {
      const lap = 5n << sizeBits;
      const text = word(0x2064_6570_7061_7257n);
      // What is left at the end of the ring is no room of the record's.
      const wrapped = withWords(
        [begin, lap - 512n],
        [begin + 8n, lap + 16n],
        [data, BigInt.asUintN(62, headId)],
        [data + 8n, text.readBigUInt64LE()],
        [textRing + member('prb_data_ring', 'tail_lpos'), 1n],
        [info(-1) + textLength, ((kernel.memory.u64(info(-1) + textLength) >> 16n) << 16n) | 8n],
      );
      const { records: found, damage: none } = readLog(wrapped);
      assert.equal(none, undefined);
      assert.equal(found.at(-1)?.text, 'Wrapped ');
      assert.equal(found.length, records.length - 1);
      assert.equal(found[0]?.sequence, 1);
    });

    it('says of a record that it is being written, and one without text is empty', () => {
      const state = kernel.memory.u64(last);
      const written = readLog(withWords([last, BigInt.asUintN(62, state)]));
      assert.deepEqual(written.records, records.slice(0, -1));
      assert.match(
        formatLogEntry(written.entries.at(-1) ?? assert.fail()),
        /^--- record \d+ is missing: it was being written when the kernel died$/,
      );
      const empty = readLog(withWords([begin, 3n], [begin + 8n, 3n], [info(-1) + textLength, 0n])).records;
      assert.equal(empty.at(-1)?.text, '');
    });

    it('has the same last record when that one alone is read', () => {
      const state = kernel.memory.u64(last);
      const beingWritten = withWords([last, BigInt.asUintN(62, state)]);
      const pages = [last, info(-1), data, descRing].map((address) =>
        withoutPage(release, kernel.memory.translate(address)),
      );
      for (const one of [kernel, beingWritten, ...pages])
        assert.deepEqual(lastLogRecord(one), readLog(one).records.at(-1));
      assert.equal(lastLogRecord(kernel)?.sequence, records.length - 1);
      assert.equal(lastLogRecord(beingWritten)?.sequence, records.length - 2);
    });

    /** The log with a page of zeros over an address, and what it should say of it. */
    const withPage = (address: bigint, byte = 0) =>
      readLog(
        openPatched(release, [
          {
            physical: Math.floor(kernel.memory.translate(address) / 4096) * 4096,
            bytes: Buffer.alloc(4096, byte),
          },
        ]),
      );
    /** Every record is there as it was, or a gap or a doubt stands in its place. */
    const assertMarked = ({ entries, damage: found }: ReturnType<typeof readLog>, what: string) => {
      const seen = new Set<number>();
      for (const entry of entries) {
        if ('missing' in entry) for (let i = 0; i < entry.missing; i++) seen.add(entry.sequence + i);
        else {
          seen.add(entry.sequence);
          if (entry.doubt === undefined) assert.deepEqual(entry, records[entry.sequence], what);
        }
      }
      assert.deepEqual(
        [...seen].sort((a, b) => a - b),
        [...records.keys()],
        what,
      );
      assert.notEqual(found, undefined, what);
    };

    it('marks what is missing where a page of the ring is lost', () => {
      assert.equal(damage, undefined);
      for (const byte of [0, 0xff]) {
        const lostInfos = withPage(info(records.length / 2), byte);
        assertMarked(lostInfos, 'infos');
        assert.match(lostInfos.damage ?? '', /^\d+ of its records are missing \(record \d+ is damaged: /);
        assertMarked(withPage(descs, byte), 'descriptors');
        assertMarked(withPage(data + 4096n, byte), 'text');
      }
      const [gap] = withPage(info(records.length / 2)).entries.filter((entry) => 'missing' in entry);
      const { sequence, missing } = (gap ?? assert.fail()) as LogGap;
      assert.ok(missing > 10 && sequence > 0);
    });

    it('has all records but those on a page that is not in the dump', () => {
      const lost = descs - (descs % 4096n) + 4096n;
      const absent = withoutPage(release, kernel.memory.translate(lost));
      const log = readLog(absent);
      assertMarked(log, 'absent');
      assert.match(log.damage ?? '', /cannot be read: .* is not in the dump/);
      assert.ok(log.records.length > records.length / 3);
    });

    it('misses a record whose text is said to be overwritten, while older ones are there', () => {
      const tail = kernel.memory.u64(textRing + member('prb_data_ring', 'tail_lpos'));
      const middle = BigInt(Math.floor(records.length / 2) * kernel.sizeOf('prb_desc'));
      const log = readLog(
        withWords([
          descs + middle + member('prb_desc', 'text_blk_lpos.begin'),
          BigInt.asUintN(64, tail - 512n),
        ]),
      );
      assertMarked(log, 'out of turn');
      assert.match(log.damage ?? '', /^1 of its records are missing .* its text is given up/);
    });

    it('shows a record as doubtful of whose text a part is zero', () => {
      const text = kernel.memory.u64(begin);
      const at = data + BigInt.asUintN(Number(sizeBits), text) + 16n;
      const log = readLog(withWords([at, 0n]));
      assertMarked(log, 'zeros');
      assert.match(formatLogEntry(log.entries.at(-1) ?? assert.fail()), /\n--- record \d+ is doubtful: /);
      assert.equal(log.damage, '1 of its records are doubtful');
    });

    it('is read beyond the end that a damaged ring names, and before its beginning', () => {
      const head = descRing + member('prb_desc_ring', 'head_id');
      const tail = descRing + member('prb_desc_ring', 'tail_id');
      for (const words of [[head, headId - 3n] as const, [tail, headId - 20n] as const]) {
        const log = readLog(withWords(words));
        assertMarked(log, 'extent');
        assert.match(log.damage ?? '', /^it counts \d+ records of at least \d+$/);
        assert.deepEqual(log.records, records);
      }
    });

    it('is refused if the ring says that it is larger than any', () => {
      const size = textRing + member('prb_data_ring', 'size_bits');
      const large = readLog(withWords([size, kernel.memory.u64(size) | 0x80n]));
      assert.deepEqual(large.entries, []);
      assert.match(large.damage ?? '', /printk ring .* is damaged/);
      const tail = descRing + member('prb_desc_ring', 'tail_id');
      assert.match(readLog(withWords([tail, 12345n])).damage ?? '', /printk ring .* it holds \d+ records/);
    });

    it('is printed as dmesg prints it', () => {
      const [record] = records;
      assert.ok(record !== undefined);
      const printed = formatLogRecord({ ...record, timeNanoseconds: 12_345_678_901n, text: 'one\ntwo' });
      assert.equal(printed, '[   12.345678] one\n               two');
    });
  });
}
