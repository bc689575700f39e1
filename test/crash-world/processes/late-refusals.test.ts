import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import {
  type Decided,
  type LateTerms,
  refuseLate,
} from '../../../src/crash-world/processes/late-refusals.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { type ImagesRoom, roomOf } from '../../../src/report/images-room.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../../criu/processes.ts';

const MIB = 2 ** 20;

function roomWith(bytes: number): ImagesRoom {
  return roomOf({ directory: '/images', bytes, files: undefined, type: 0 });
}

/** A group of one process with so much memory. */
function groupWith(pid: number, mebibytes: number): ReturnType<typeof groupOf> {
  const pages = mebibytes * 256;
  const runs = listedRuns([{ address: 0x40_0000, pages, physical: 0 }]);
  const memory = memoryOf([areaOf(0x40_0000, pages, { runs })], { id: pid });
  return { ...groupOf([processOf(pid, { memory, comm: `p${pid}` })]), id: pid };
}

const why = 'a TCP connection';

function decide(over: Partial<LateTerms>): Decided {
  const groups = [groupWith(10, 100), groupWith(20, 200), groupWith(30, 1), groupWith(40, 900)];
  const dependences = [
    { pids: [10, 20] as const, why },
    { pids: [20, 30] as const, why },
  ];
  return refuseLate(groups, { problemsOf: () => [], dependences, room: undefined, ...over });
}

function reasonsIn({ refused }: Decided): [number, readonly string[]][] {
  return refused.map(({ pid, reasons }) => [pid, reasons]);
}

suite('what is refused after the capture', () => {
  test('is refused with all that depend on it', () => {
    const reasons = ['is in the sandbox of a.service, where CRIU before 4.0 has restored nobody yet'];
    const decided = decide({
      problemsOf: ({ id }) => (id === 30 ? [{ pid: 30, comm: 'p30', reasons }] : []),
    });
    assert.deepEqual(
      decided.groups.map(({ id }) => id),
      [40],
    );
    assert.deepEqual(reasonsIn(decided), [
      [30, reasons],
      [20, [`is tied to 30 (p30; ${why}), which cannot come back`]],
      [10, [`is tied to 20 (p20; ${why}), which cannot come back`]],
    ]);
  });

  test('is nobody if nothing stands against anybody', () => {
    const decided = decide({ room: roomWith(2 ** 40) });
    assert.equal(decided.groups.length, 4);
    assert.deepEqual(decided.refused, []);
  });

  test('are all that depend on each other if there is no room for their images together', () => {
    // For two of the three, and not for the largest: what nobody depends on is tried all the same.
    const decided = decide({ room: roomWith(250 * MIB) });
    assert.deepEqual(
      decided.groups.map(({ id }) => id),
      [40],
    );
    const without = (...others: string[]): string =>
      `has no room for its images and those of ${others.join(', ')}, on which it depends, in /images`;
    assert.deepEqual(reasonsIn(decided), [
      [10, [without('20 (p20)', '30 (p30)')]],
      [20, [without('10 (p10)', '30 (p30)')]],
      [30, [without('10 (p10)', '20 (p20)')]],
    ]);
  });
});
