import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as z from 'zod';
import { damageOf } from '../../src/system/damage.ts';

function thrownBy(what: () => unknown): unknown {
  try {
    what();
  } catch (error) {
    return error;
  }
  return assert.fail('nothing was thrown');
}

test('damage is told in one line, with the place, and without names of exceptions', () => {
  const schema = z.strictObject({
    rules: z.array(z.strictObject({ name: z.string().min(1), pid: z.int() })),
  });
  const half = damageOf(thrownBy(() => JSON.parse('{"rules"')));
  assert.match(half, /^it is not JSON \(/);
  const wrong = damageOf(thrownBy(() => schema.parse({ rules: [{ name: '', pid: 'x' }] })));
  assert.match(wrong, /^rules\.0\.name: .*; rules\.0\.pid: /);
  for (const text of [half, wrong]) assert.doesNotMatch(text, /\n|Error/);
  assert.equal(damageOf(new Error('/x is a symbolic link')), '/x is a symbolic link');
});
