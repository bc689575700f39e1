import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { FreeMemory } from '../../src/kexec/placement.ts';
import { GIB, MIB } from './made-image.ts';

const advice = 'reserve more';

suite('segments', () => {
  test('are placed from the top down, in whole pages', () => {
    const free = new FreeMemory([{ start: 16 * MIB, end: 32 * MIB }], advice);
    assert.deepEqual(free.take({ name: 'a', memoryBytes: 1 }), { start: 32 * MIB - 4096, end: 32 * MIB });
    const second = free.take({ name: 'b', memoryBytes: 4097 });
    assert.deepEqual(second, { start: 32 * MIB - 3 * 4096, end: 32 * MIB - 4096 });
  });

  test('keep their alignment, and small ones fill what it leaves', () => {
    const free = new FreeMemory([{ start: 16 * MIB, end: 32 * MIB - 4096 }], advice);
    const kernel = free.take({ name: 'kernel', memoryBytes: 3 * MIB, alignment: 2 * MIB });
    assert.deepEqual(kernel, { start: 28 * MIB, end: 31 * MIB });
    assert.equal(free.take({ name: 'a', memoryBytes: 4096 }).end, 32 * MIB - 4096);
    assert.equal(free.take({ name: 'b', memoryBytes: MIB }).end, 28 * MIB);
  });

  test('take the highest of several ranges that has room, within their limits', () => {
    const ranges = [
      { start: 16 * MIB, end: 64 * MIB },
      { start: 8 * GIB, end: 8 * GIB + 4 * MIB },
    ];
    const free = new FreeMemory(ranges, advice);
    assert.equal(free.take({ name: 'a', memoryBytes: MIB }).end, 8 * GIB + 4 * MIB);
    assert.equal(free.take({ name: 'b', memoryBytes: 8 * MIB }).end, 64 * MIB);
    assert.equal(free.take({ name: 'c', memoryBytes: MIB, limit: 4 * GIB }).end, 56 * MIB);
    assert.equal(free.take({ name: 'd', memoryBytes: MIB, limit: 30 * MIB + 1 }).start, 29 * MIB);
    assert.throws(() => free.take({ name: 'e', memoryBytes: 8 * MIB, minimum: 60 * MIB }), /no room for e/);
  });

  test('only take whole pages of a range', () => {
    const free = new FreeMemory([{ start: 0x1001, end: 0x3fff }], advice);
    assert.deepEqual(free.take({ name: 'a', memoryBytes: 4096 }), { start: 0x2000, end: 0x3000 });
    assert.throws(() => free.take({ name: 'b', memoryBytes: 1 }), /4096 bytes are missing \(free: none\)/);
  });

  test('say how many bytes are missing', () => {
    const free = new FreeMemory([{ start: 15 * MIB, end: 32 * MIB }], advice);
    assert.throws(() => free.take({ name: 'the kernel', memoryBytes: 20 * MIB, alignment: 2 * MIB }), {
      name: 'KexecError',
      message:
        'there is no room for the kernel: it needs 20971520 bytes in one piece, aligned to 2097152; ' +
        '4194304 bytes are missing (free: 0xf00000-0x1ffffff); reserve more',
    });
    assert.throws(
      () => free.take({ name: 'initrd', memoryBytes: MIB, limit: 8 * MIB }),
      /1048576 bytes in one piece below 0x800000, aligned to 4096; 1048576 bytes are missing/,
    );
  });
});
