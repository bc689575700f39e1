import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { giveKeys } from '../../../src/criu/restore/memory-keys.ts';

const [PKEY_MPROTECT, PKEY_ALLOC, PKEY_FREE] = [329, 330, 331];

/** A process as the kernel keeps its keys (arch/x86/include/asm/pkeys.h). */
class Keeper {
  readonly pid = 1;
  pkru: number;
  map: number;
  readonly areas: (readonly number[])[] = [];
  constructor(pkru: number, map = 1) {
    this.pkru = pkru;
    this.map = map;
  }
  call(_tid: number, number: number, ...values: readonly number[]): number {
    const [first = 0, rights = 0, , key_ = 0] = values;
    if (number === PKEY_MPROTECT) {
      if ((this.map & (1 << key_)) === 0) return -22;
      this.areas.push(values);
      return 0;
    }
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
        giveKeys(keeper, { pid: 1, keys, pkru, areas: [] });
        assert.deepEqual(
          [keeper.map, keeper.pkru],
          [keys.reduce((map, key) => map | (1 << key), 1), pkru],
          `${keys}, PKRU ${pkru.toString(16)}`,
        );
      }
    }
  });

  it('are put where they were', () => {
    const keeper = new Keeper(0);
    const area = { start: 0x7f00_0000_0000, bytes: 8192, prot: 7, key: 2 };
    giveKeys(keeper, { pid: 1, keys: [2], pkru: 0, areas: [area] });
    assert.deepEqual(keeper.areas, [[0x7f00_0000_0000, 8192, 7, 2]]);
    const other = { pid: 1, keys: [1], pkru: 0, areas: [area] };
    assert.throws(() => giveKeys(new Keeper(0), other), /the area at 0x7f0000000000 does not get key 2/);
  });

  it('fail if the kernel does not give one', () => {
    assert.throws(
      () => giveKeys(new Keeper(0, 0xffff), { pid: 1, keys: [3], pkru: 0, areas: [] }),
      /gives -28 where 1 is wanted/,
    );
    assert.throws(
      () => giveKeys(new Keeper(0, 0b11), { pid: 1, keys: [1], pkru: 0, areas: [] }),
      /gives 2 where 1 is wanted/,
    );
  });
});
