import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type CrashImageContent, planCrashImage } from '../../src/kexec/crash-plan.ts';
import type { ImagePlan, PlacedImage } from '../../src/kexec/image-plan.ts';
import { segmentRange } from '../../src/kexec/segments.ts';
import { PT_LOAD, PT_NOTE, parseProgramHeaders } from '../../src/system/elf.ts';
import { GIB, MIB, madeImage, resources, runningBootParams, small } from './made-image.ts';

const reservation = { start: 0x6a000000, end: 0x7e000000 };

function contentWith(change: Partial<CrashImageContent> = {}): CrashImageContent {
  return {
    image: madeImage(),
    initrd: Buffer.alloc(5 * MIB + 1, 0x77),
    commandLine: 'root=/dev/vda',
    resources: small,
    bootParams: runningBootParams(),
    notes: [{ address: 0x1a3e000, bytes: 4096 }],
    ...change,
  };
}

function segmentOf(plan: ImagePlan, name: string) {
  const found = plan.segments.find((segment) => segment.name === name);
  assert.ok(found, name);
  return found;
}

suite('a crash image', () => {
  test('lies in the reservation, above its first mebibyte, without overlaps', () => {
    const plan = planCrashImage(contentWith());
    assert.deepEqual(
      plan.segments.map(({ name }) => name),
      ['kernel', 'initrd', 'boot-params', 'elfcorehdr'],
    );
    const ranges = plan.segments.map(segmentRange).toSorted((a, b) => a.start - b.start);
    ranges.forEach(({ start, end }, index) => {
      assert.ok(start >= reservation.start + MIB && end <= reservation.end);
      assert.ok(start >= (ranges[index - 1]?.end ?? 0));
      assert.equal(start % 4096, 0);
      assert.equal(end % 4096, 0);
    });
  });

  test('has the kernel where it may lie, with the memory that it needs, and tells its entry', () => {
    const plan = planCrashImage(contentWith());
    const kernel = segmentOf(plan, 'kernel');
    assert.equal(kernel.address % (2 * MIB), 0);
    assert.equal(kernel.memoryBytes, 4 * MIB);
    assert.equal(plan.entry, kernel.address + 0x200);
    assert.equal(plan.bootParams, segmentOf(plan, 'boot-params').address);
  });

  test('tells the kernel where everything is', () => {
    const plan = planCrashImage(contentWith());
    const header = segmentOf(plan, 'elfcorehdr');
    const params = segmentOf(plan, 'boot-params').bytes;
    const line = `elfcorehdr=0x${header.address.toString(16)} root=/dev/vda`;
    assert.equal(plan.commandLine, line);
    assert.equal(params.toString('latin1', 4096, 4096 + line.length + 1), `${line}\0`);
    assert.equal(params.readUInt32LE(0x218), segmentOf(plan, 'initrd').address);
    assert.equal(params.readUInt32LE(0x21c), 5 * MIB + 1);
    assert.equal(params.readUInt8(0x1e8), plan.memoryMap.length);
  });

  test('keeps the core header from the crash kernel', () => {
    const plan = planCrashImage(contentWith());
    const { start, end } = segmentRange(segmentOf(plan, 'elfcorehdr'));
    assert.ok(plan.memoryMap.some((e) => e.type === 'reserved' && e.start <= start && end <= e.end));
    assert.ok(plan.memoryMap.some((e) => e.type === 'ram' && e.start === reservation.start));
  });

  test('has further segments, whose content may depend on all the others', () => {
    const seen: PlacedImage[] = [];
    const look = (placed: PlacedImage): Buffer => {
      seen.push(placed);
      return Buffer.from([seen.length]);
    };
    const plan = planCrashImage(
      contentWith({
        extra: [
          { name: 'first', memoryBytes: 100, alignment: MIB, kept: true, content: look },
          { name: 'second', memoryBytes: 4097, kept: false, content: look },
        ],
      }),
    );
    const [first, second] = [segmentOf(plan, 'first'), segmentOf(plan, 'second')];
    assert.equal(first.address % MIB, 0);
    assert.deepEqual([first.memoryBytes, second.memoryBytes], [4096, 8192]);
    assert.deepEqual([first.bytes[0], second.bytes[0]], [1, 2]);
    assert.deepEqual(
      seen.map(({ segments }) => segments.map(({ name }) => name)),
      [
        ['kernel', 'initrd', 'boot-params', 'elfcorehdr'],
        ['kernel', 'initrd', 'boot-params', 'elfcorehdr', 'first'],
      ],
    );
    assert.deepEqual(
      seen.map(({ own }) => own),
      [segmentRange(first), segmentRange(second)],
    );
    for (const { ranges, entry, bootParams, memoryMap } of seen) {
      assert.deepEqual(
        [...ranges],
        plan.segments.map((segment) => [segment.name, segmentRange(segment)]),
      );
      assert.deepEqual([entry, bootParams], [plan.entry, plan.bootParams]);
      assert.equal(memoryMap, plan.memoryMap);
    }
    const typeAt = (at: number) => plan.memoryMap.find(({ start, end }) => start <= at && at < end)?.type;
    assert.deepEqual([typeAt(first.address), typeAt(second.address)], ['reserved', 'ram']);
  });

  test('shows notes and memory of further segments in /proc/vmcore', () => {
    const plan = planCrashImage(
      contentWith({
        loads: [{ address: 0x5000, bytes: 0x1000 }],
        extra: [
          {
            name: 'saved',
            memoryBytes: 3 * 4096,
            kept: true,
            content: Buffer.from('notes'),
            notes: [{ offset: 16, bytes: 2000 }],
            loads: [{ offset: 4096, bytes: 8192, virtual: 9n }],
          },
        ],
      }),
    );
    const { address } = segmentOf(plan, 'saved');
    const header = segmentOf(plan, 'elfcorehdr').bytes;
    const found = parseProgramHeaders(header.subarray(64)).map((s) => [s.type, s.physical, s.memoryBytes]);
    assert.deepEqual(found.slice(0, 2), [
      [PT_NOTE, 0x1a3e000, 4096],
      [PT_NOTE, address + 16, 2000],
    ]);
    assert.deepEqual(found.slice(-2), [
      [PT_LOAD, 0x5000, 0x1000],
      [PT_LOAD, address + 4096, 8192],
    ]);
  });

  test('needs no initrd', () => {
    for (const initrd of [undefined, Buffer.alloc(0)]) {
      const plan = planCrashImage(contentWith({ initrd }));
      assert.ok(!plan.segments.some(({ name }) => name === 'initrd'));
      assert.equal(segmentOf(plan, 'boot-params').bytes.readUInt32LE(0x21c), 0);
    }
  });

  test('lies in the upper of two reservations', () => {
    const two = resources(
      [0x1000, 0x9ffff, 'System RAM'],
      [0x100000, 3 * GIB - 1, 'System RAM'],
      [0x10000000, 0x1fffffff, 'Crash kernel', 1],
      [4 * GIB, 17 * GIB - 1, 'System RAM'],
      [16 * GIB, 16 * GIB + 0xfffffff, 'Crash kernel', 1],
    );
    const plan = planCrashImage(contentWith({ resources: two }));
    assert.ok(plan.segments.every(({ address }) => address >= 16 * GIB + MIB));
    assert.equal(segmentOf(plan, 'boot-params').bytes.readUInt32LE(0xc0), 4);
    assert.throws(
      () => planCrashImage(contentWith({ resources: two, image: madeImage({ xloadflags: 1 }) })),
      {
        message: /no room for boot-params: .* below 0x100000000/,
      },
    );
  });

  test('does not go where its initrd cannot be reached', () => {
    const old = madeImage({ xloadflags: 1, initrdAddrMax: 0x6fffffff });
    const plan = planCrashImage(contentWith({ image: old }));
    assert.equal(segmentRange(segmentOf(plan, 'initrd')).end, 0x70000000);
  });

  test('is refused with the reason', () => {
    const page = { memoryBytes: 4096, kept: true, content: Buffer.alloc(4096) };
    const refused: readonly [Partial<CrashImageContent>, RegExp][] = [
      [{ image: Buffer.alloc(5), imageName: '/boot/x' }, /^\/boot\/x has 5 bytes/],
      [{ image: madeImage({ initSize: 1000 * MIB }) }, /no room for kernel: .*; reserve more: crashkernel=/],
      [{ commandLine: 'a'.repeat(2047) }, /the command line has 2069 bytes, and the kernel reads 2047/],
      [{ resources: small.filter(({ name }) => name !== 'Crash kernel') }, /no memory that is reserved/],
      [{ image: madeImage({ xloadflags: 3 }), fiveLevels: true }, /boot with no5lvl/],
      [{ extra: [{ ...page, name: 'kernel' }] }, /two segments are called kernel/],
      [{ extra: [{ ...page, name: 'elfcorehdr' }] }, /two segments are called elfcorehdr/],
      [
        { extra: [{ name: 'big', memoryBytes: 4096, kept: true, content: Buffer.alloc(4097) }] },
        /the segment big has 4097 bytes, and 4096 of memory were asked for/,
      ],
    ];
    for (const [change, message] of refused)
      assert.throws(() => planCrashImage(contentWith(change)), { name: 'KexecError', message });
  });
});
