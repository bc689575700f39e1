import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { checkWaited } from '../../lab/panic.ts';

/** No guest is called that, so there is no console. */
const name = `test-gone-${process.pid}`;
const begun = { id: 'one', state: 'restoring' };
const settled = { id: 'one', state: 'settled' };

suite('waiting for a report', () => {
  test('blames no crash world for a guest that is gone', () => {
    for (const incident of [undefined, begun])
      assert.throws(
        () => checkWaited(name, incident, 180, false),
        /^LabError: guest test-gone-\d+ is gone: it was taken down, or its QEMU has ended, before its crash world had reported$/,
      );
  });

  test('blames the crash world of a guest that is there', () => {
    assert.throws(() => checkWaited(name, undefined, 180, true), /crash world of test-gone-.* within 180 s$/);
  });

  test('takes what there is of a report, and a whole one of a guest that is gone', () => {
    checkWaited(name, begun, 180, true);
    checkWaited(name, settled, 180, true);
    checkWaited(name, settled, 180, false);
  });
});
