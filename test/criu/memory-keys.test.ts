import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { allocateKeys, memoryKeysOf } from '../../src/criu/memory-keys.ts';
import { groupOf, memoryOf, processOf } from './processes.ts';

const [PKEY_ALLOC, PKEY_FREE] = [330, 331];

/** A process as the kernel keeps its keys (arch/x86/include/asm/pkeys.h). */
class Keeper {
  readonly pid = 1;
  pkru: number;
  map: number;
  constructor(pkru: number, map = 1) {
    this.pkru = pkru;
    this.map = map;
  }
  call(_tid: number, number: number, first = 0, rights = 0): number {
    if (number === PKEY_FREE) {
      this.map &= ~(1 << first);
      return 0;
    }
    assert.equal(number, PKEY_ALLOC);
    const key = Array.from({ length: 16 }, (_, i) => i).find((i) => (this.map & (1 << i)) === 0);
    if (key === undefined) return -28;
    this.map |= 1 << key;
    this.pkru = ((this.pkru & ~(3 << (2 * key))) | (rights << (2 * key))) >>> 0;
    return key;
  }
}

describe('memory protection keys', () => {
  it('are allocated again, those and no others, without a change of any right', () => {
    for (const keys of [[1], [2, 5], [1, 2, 3], [15]]) {
      for (const pkru of [0x5555_5554, 0, 0xffff_fffc, 0x8000_0120]) {
        const keeper = new Keeper(pkru);
        allocateKeys(keeper, { pid: 1, keys, pkru });
        assert.deepEqual(
          [keeper.map, keeper.pkru],
          [keys.reduce((map, key) => map | (1 << key), 1), pkru],
          `${keys}, PKRU ${pkru.toString(16)}`,
        );
      }
    }
  });

  it('fail if the kernel does not give one', () => {
    assert.throws(
      () => allocateKeys(new Keeper(0, 0xffff), { pid: 1, keys: [3], pkru: 0 }),
      /gives -28 where 1 is wanted/,
    );
    assert.throws(
      () => allocateKeys(new Keeper(0, 0b11), { pid: 1, keys: [1], pkru: 0 }),
      /gives 2 where 1 is wanted/,
    );
  });

  it('are planned with the rights of the first thread', () => {
    const withKeys = processOf(7, {
      memory: { ...memoryOf([]), protectionKeys: [1, 3] },
    });
    const [thread = assert.fail()] = withKeys.threads;
    const pkru = { number: 9, data: Uint8Array.from([0x54, 0x55, 0x55, 0x51, 0, 0, 0, 0]) };
    const threads = [{ ...thread, fpu: { ...thread.fpu, components: [pkru] } }];
    const without = processOf(8, { memory: { ...memoryOf([]), protectionKeys: [] } });
    assert.deepEqual(memoryKeysOf(groupOf([{ ...withKeys, threads }, without])), [
      { pid: 7, keys: [1, 3], pkru: 0x5155_5554 },
    ]);
  });
});
