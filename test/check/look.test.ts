import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type CheckRequest, type Seen, seenIn } from '../../src/check/look.ts';
import { newFindings, refuseForNow } from '../../src/model/verdict.ts';
import { roomOf } from '../../src/report/images-room.ts';
import { groupOf, processOf } from '../criu/processes.ts';

const why = 'a TCP connection';
const dependences = [{ pids: [10, 20] as const, why }];

interface Given {
  readonly roomBytes?: number;
  /** A process that is busy at this moment. */
  readonly busy?: number;
  /** One that CRIU 3.17, which is there then, does not restore. */
  readonly newer?: number;
}

function look({ roomBytes = 2 ** 40, busy, newer }: Given): Seen[] {
  const groups = [10, 20, 30].map((pid) => {
    const findings = newFindings();
    if (pid === busy) refuseForNow(findings, 'is in the middle of execve', 'passing');
    const process = processOf(pid, { comm: `p${pid}`, findings });
    return { ...groupOf([{ ...process, membarrierRegistrations: pid === newer ? 1 : 0 }]), id: pid };
  });
  const captured = { groups, dependences, ties: new Map(), refused: [], ended: [], notes: [] };
  const look = seenIn(captured, {
    ...{ roots: [], includeDescendants: true, hasStageZero: false, leased: new Map<string, string>() },
    criu: newer === undefined ? undefined : { major: 3, minor: 17 },
    room: roomOf({ directory: '/images', bytes: roomBytes, files: undefined, type: 0 }),
  } satisfies CheckRequest);
  return [...look.values()];
}

suite('groups of which one comes back only if the other may', () => {
  test('have room for their images together, or none has', () => {
    assert.deepEqual(
      look({}).flatMap(({ reasons, moments }) => [...reasons, ...moments]),
      [],
    );
    const one = look({})[0]?.images?.bytes ?? assert.fail();
    // For two of the three.
    assert.deepEqual(
      look({ roomBytes: Math.ceil((2.5 * one) / 0.9) }).map(({ pid, reasons }) => [pid, reasons]),
      [
        [10, ['has no room for its images and those of 20 (p20), on which it depends, in /images']],
        [20, ['has no room for its images and those of 10 (p10), on which it depends, in /images']],
        [30, []],
      ],
    );
  });

  test('cannot come back at a moment at which the other one cannot', () => {
    assert.deepEqual(
      look({ busy: 20 }).map(({ pid, reasons, moments }) => [pid, reasons, moments]),
      [
        [10, [], [`is tied to 20 (p20; ${why}), which cannot come back at this moment`]],
        [20, [], ['is in the middle of execve']],
        [30, [], []],
      ],
    );
  });

  test('are refused with the other one that this CRIU does not restore', () => {
    const reasons = look({ newer: 20 }).map((one) => [one.pid, one.reasons] as const);
    assert.deepEqual(
      new Map(reasons),
      new Map([
        [10, [`is tied to 20 (p20; ${why}), which cannot come back`]],
        [20, ['has registrations for membarrier, which CRIU before 4.0 does not restore']],
        [30, []],
      ]),
    );
  });
});
