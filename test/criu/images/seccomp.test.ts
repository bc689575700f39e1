import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filterIds } from '../../../src/criu/images/seccomp.ts';
import type { SeccompFilter } from '../../../src/model/process.ts';
import { processOf, threadOf } from '../processes.ts';

const filter = (previous?: SeccompFilter): SeccompFilter => ({
  program: Buffer.alloc(8),
  isLogged: false,
  previous,
});

test('filters are numbered once each, and after those that were there before', () => {
  const inherited = filter();
  const [newest, other] = [filter(filter(inherited)), filter(inherited)];
  const thread = (tid: number, seccomp?: SeccompFilter) => ({ ...threadOf(tid), seccomp });
  const tree = [
    processOf(7, { threads: [thread(7, newest), thread(8)] }),
    processOf(9, { threads: [thread(9, other), thread(10, newest)] }),
  ];
  const ids = filterIds({ tree });
  assert.deepEqual(
    [...ids],
    [
      [inherited, 0],
      [newest.previous, 1],
      [newest, 2],
      [other, 3],
    ],
  );
});
