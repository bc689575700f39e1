import assert from 'node:assert/strict';
import { test } from 'node:test';
import { emptyUnit, unitTargets } from '../../src/check/targets.ts';

test('a unit that is not there is named as it was typed, without an option', () => {
  assert.throws(
    () => unitTargets('otherworld-no-such', undefined),
    /^NothingToCheckError: there is no unit otherworld-no-such\.service(, or it has no process now)?$/,
  );
  assert.throws(
    () => unitTargets('no-such.scope', { name: 'root', uid: 0 }),
    /^NothingToCheckError: there is no unit no-such\.scope of root, or it has no process now$/,
  );
});

test('of a unit without processes it is told whether there is one', () => {
  assert.equal(emptyUnit('a.service', undefined, true), 'unit a.service has no process now');
  assert.equal(emptyUnit('a.service', undefined, false), 'there is no unit a.service');
});
