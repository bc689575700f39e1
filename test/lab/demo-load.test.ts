import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { LOAD_BATCH, LOAD_KEYS, wrongKeys } from '../../lab/demo/load.ts';

/** The values of all keys when so many writes, numbered from 0 on, have been done. */
function valuesAfter(writes: number): (number | undefined)[] {
  const values = new Array<number | undefined>(LOAD_KEYS);
  for (let n = 0; n < writes; n++) values[n % LOAD_KEYS] = n;
  return values;
}

suite('what Redis has of the acknowledged writes', () => {
  const acknowledged = LOAD_KEYS * 3 + 1700;

  test('is whole with all of them, and with those that were on their way', () => {
    for (const more of [0, 1, LOAD_BATCH, 2 * LOAD_BATCH]) {
      assert.equal(wrongKeys({ acknowledged, values: valuesAfter(acknowledged + more) }), 0, `${more}`);
    }
    const few = LOAD_KEYS / 2;
    assert.equal(wrongKeys({ acknowledged: few, values: valuesAfter(few) }), 0);
  });

  test('is not if the last ones are lost', () => {
    assert.equal(wrongKeys({ acknowledged, values: valuesAfter(acknowledged - 1) }), 1);
    assert.equal(wrongKeys({ acknowledged, values: valuesAfter(acknowledged - 250) }), 250);
  });

  test('is not if a key is gone, has the value of another, or one that nobody had sent', () => {
    for (const value of [undefined, acknowledged - 1, acknowledged + LOAD_KEYS]) {
      const values = valuesAfter(acknowledged);
      values[1700] = value;
      assert.equal(wrongKeys({ acknowledged, values }), 1, `${value}`);
    }
  });

  test('is nothing if Redis does not answer', () => {
    assert.equal(wrongKeys({ acknowledged, values: [undefined] }), LOAD_KEYS);
  });
});
