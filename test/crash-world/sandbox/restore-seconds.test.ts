import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noteHeld } from '../../../src/crash-world/sandbox/sandboxes.ts';
import { reportSchema } from '../../../src/report/schema.ts';
import { emptyReport } from '../../report/example.ts';

test('the report says how long groups took that came back in a sandbox', () => {
  const groups = [5, 6, 7].map((group) => ({ group, plan: ['restores it'] }));
  const report = { ...emptyReport(), groups };
  noteHeld(report, [
    { group: 5, pids: [5], seconds: { criu: 1.5, all: 2.5 } },
    { group: 7, pids: [7, 8], seconds: { criu: 3, all: 4 } },
  ]);
  const found = reportSchema
    .parse(report)
    .groups?.map(({ group, restoreSeconds }) => [group, restoreSeconds]);
  assert.deepEqual(found, [
    [5, { criu: 1.5, all: 2.5 }],
    [6, undefined],
    [7, { criu: 3, all: 4 }],
  ]);
});
