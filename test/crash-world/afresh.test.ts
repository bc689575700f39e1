import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { afreshCommand, isStartedByBoot } from '../../src/crash-world/afresh.ts';

const now = (ActiveState: string, Job = ''): Map<string, string> =>
  new Map(Object.entries({ ActiveState, Job }));

suite('a service that does not get its processes', () => {
  test('is started afresh if the boot has it started, or has tried', () => {
    for (const state of [now('inactive', '412'), now('activating', '412'), now('active'), now('failed', '0')])
      assert.ok(isStartedByBoot(state));
    assert.equal(afreshCommand(true), 'restart');
  });

  test('begins no work of its own if nobody but this program has had it started', () => {
    for (const state of [now('inactive'), now('inactive', '0')]) assert.ok(!isStartedByBoot(state));
    assert.equal(afreshCommand(false), 'stop');
  });
});
