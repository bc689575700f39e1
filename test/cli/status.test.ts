import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namesOf } from '../../src/cli/status.ts';

test('protected processes of one name are told apart by what they were started with', () => {
  const process = (pid: number, comm: string, commandLine?: string) => ({ pid, comm, commandLine });
  const long = `postgres: walsender ${'x'.repeat(100)}`;
  assert.deepEqual(
    namesOf([
      process(1, 'postgres', 'postgres: checkpointer'),
      process(2, 'postgres', long),
      process(3, 'sh', 'sh -c x'),
    ]),
    ['postgres: checkpointer (1)', `${long.slice(0, 60)} (2)`, 'sh (3)'],
  );
  assert.deepEqual(namesOf([process(1, 'a'), process(2, 'a')]), ['a (1)', 'a (2)']);
});
