import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { WaitLimit, waitsForOther } from '../../../src/crash-world/sandbox/sandboxes.ts';
import {
  afreshCommand,
  couldBeStarted,
  isStartedByBoot,
  notStarted,
} from '../../../src/crash-world/systemd/afresh.ts';

const now = (ActiveState: string, Job = ''): Map<string, string> =>
  new Map(Object.entries({ ActiveState, Job }));

suite('a service that does not get its processes', () => {
  test('is started afresh if the boot has it started, or has tried', () => {
    for (const state of [now('inactive', '412'), now('activating', '412'), now('active'), now('failed', '0')])
      assert.ok(isStartedByBoot(state));
    assert.equal(afreshCommand('web.service', true)[0], 'restart');
  });

  test('begins no work of its own if nobody but this program has had it started', () => {
    for (const state of [now('inactive'), now('inactive', '0')]) assert.ok(!isStartedByBoot(state));
    assert.equal(afreshCommand('web.service', false)[0], 'stop');
  });

  test('is started and stopped alone, whatever requires it', () => {
    for (const isStarted of [true, false]) {
      const words = afreshCommand('web.service', isStarted);
      assert.ok(words.includes('--job-mode=ignore-requirements'));
      assert.deepEqual(words.slice(-2), ['--', 'web.service']);
    }
  });

  test('is started afresh if anything could start it later, and otherwise it is said what was seen', () => {
    const seen = (over: Record<string, string> = {}): Map<string, string> =>
      new Map(
        Object.entries({ WantedBy: '', RequiredBy: '', TriggeredBy: '', UnitFileState: 'disabled', ...over }),
      );
    assert.ok(!couldBeStarted(seen()));
    assert.ok(!couldBeStarted(seen({ UnitFileState: 'static' })));
    for (const name of ['WantedBy', 'RequiredBy', 'TriggeredBy'])
      assert.ok(couldBeStarted(seen({ [name]: 'later.target' })), name);
    assert.ok(couldBeStarted(seen({ UnitFileState: 'enabled' })));
    assert.match(
      notStarted('web.service', seen()),
      /^web\.service is not started afresh: .* no loaded unit wants, requires or triggers it, .* is disabled$/,
    );
  });
});

suite('the time for which units are waited for', () => {
  test('begins again whenever it is decided what becomes of one', () => {
    let now = 0;
    const limit = new WaitLimit(100, () => now);
    now = 100;
    assert.ok(!limit.isOver());
    limit.restart();
    now = 200;
    assert.ok(!limit.isOver());
    now = 201;
    assert.ok(limit.isOver());
  });

  test('does not end for one that is ordered after another that waits', () => {
    const after = new Map([['After', 'basic.target db.service web.service']]);
    const waiting = (...units: string[]) => new Map(units.map((unit) => [unit, {}]));
    assert.ok(waitsForOther('web.service', after, waiting('web.service', 'db.service')));
    assert.ok(!waitsForOther('web.service', after, waiting('web.service', 'other.service')));
    assert.ok(!waitsForOther('web.service', new Map(), waiting('web.service')));
  });
});
