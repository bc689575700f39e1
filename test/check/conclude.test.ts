import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { agree, agreeOrFree, concludeLooks } from '../../src/check/conclude.ts';
import type { Look, Seen } from '../../src/check/look.ts';
import type { Loss, UnexpectedLoss } from '../../src/model/loss.ts';

function seen(found: Partial<Seen> = {}): Seen {
  const none = {
    isEnding: false,
    reasons: [],
    moments: [],
    notes: [],
    losses: [],
    unexpected: [],
    inDoubt: [],
    against: [],
  };
  return { pid: 7, comm: 'web', ...none, ...found };
}

function looks(...found: readonly Partial<Seen>[]): Look[] {
  return found.map((one) => new Map([[7, seen(one)]]));
}

function outcome(...found: readonly Partial<Seen>[]) {
  const [one] = concludeLooks(looks(...found));
  return [one?.outcome, one?.reasons, one?.moments];
}

const RING: UnexpectedLoss = {
  ...{ kind: 'descriptors', of: 'fd 5', fd: 5 },
  what: 'fd 5 is gone: it has an open io_uring',
};

const SECCOMP = 'has a seccomp filter';
const ON_CPU = 'thread 7 is on CPU 1: its registers are there, not in memory';

suite('a process with a crash procedure', () => {
  test('comes back for that alone if it lost by each look what it does not expect to lose', () => {
    assert.deepEqual(outcome({ unexpected: [RING] }, { unexpected: [RING] }), ['for its procedure', [], []]);
    const [one] = concludeLooks(looks({ unexpected: [RING] }, { unexpected: [RING] }));
    assert.deepEqual(one?.losses, [RING]);
    const against = ['uses io_uring', 'was in write'];
    const [known] = concludeLooks(
      looks({ unexpected: [RING], against }, { unexpected: [RING], against: against.slice(0, 1) }),
    );
    assert.deepEqual(known?.against, ['uses io_uring']);
  });

  test('is refused if something else stands against it, and depends if only some looks found a loss', () => {
    const refused = { reasons: [SECCOMP], unexpected: [RING] };
    assert.equal(outcome(refused, refused)[0], 'refused');
    assert.deepEqual(outcome({ unexpected: [RING] }, {}, { unexpected: [RING] }), [
      'depends',
      [],
      [`lost: ${RING.what}`],
    ]);
    assert.equal(agree(looks({ unexpected: [RING] }, {})), false);
    assert.equal(agreeOrFree(looks({ unexpected: [RING] })), false);
  });
});

suite('looks at a process', () => {
  test('end when two in a row agree, and none of them found anything that is of the moment', () => {
    assert.equal(agree(looks({})), false);
    assert.equal(agree(looks({}, {})), true);
    assert.equal(agree(looks({ reasons: [SECCOMP] }, {})), false);
    assert.equal(agree(looks({}, { reasons: [SECCOMP] }, { reasons: [SECCOMP] })), true);
    assert.equal(agree(looks({ moments: [ON_CPU] }, { moments: [ON_CPU] })), false);
    assert.equal(agree(looks({ isEnding: true }, {})), false);
  });

  test('go on for a process that the look before did not find', () => {
    assert.equal(agree([new Map(), ...looks({})]), false);
    assert.equal(agree([...looks({}), new Map()]), true);
  });

  test('of who wants to be brief end when nothing is found against anybody', () => {
    assert.equal(agreeOrFree([]), false);
    assert.equal(agreeOrFree(looks({})), true);
    assert.equal(agreeOrFree(looks({ reasons: [SECCOMP] })), false);
    assert.equal(agreeOrFree(looks({ moments: [ON_CPU] }, {})), false);
    assert.equal(agreeOrFree(looks({ moments: [ON_CPU] }, {}, {})), true);
    assert.equal(agreeOrFree(looks({ reasons: [SECCOMP] }, { reasons: [SECCOMP] })), true);
  });

  test('say that it comes back if they find nothing', () => {
    assert.deepEqual(outcome({}, {}), ['comes back', [], []]);
  });

  const loss = (of: string, what = of) => ({ kind: 'connections' as const, of, what });
  const lossesBy = (...found: readonly (readonly Loss[])[]) => {
    const [one] = concludeLooks(looks(...found.map((losses) => ({ losses }))));
    return [one?.outcome, one?.losses, one?.moments];
  };

  test('say with what losses it comes back if all that count found some', () => {
    const [a, b] = [loss('a'), loss('b')];
    assert.deepEqual(lossesBy([], [a], [a]), ['with losses', [a], []]);
    assert.deepEqual(lossesBy([a, b], [b]), ['with losses', [b], ['lost: a']]);
    assert.deepEqual(lossesBy([a], [b]), ['with losses', [], ['lost: a', 'lost: b']]);
    assert.equal(outcome({ losses: [a], reasons: [SECCOMP] }, { reasons: [SECCOMP] })[0], 'refused');
  });

  test('know a loss by what is lost, not by the words for it', () => {
    const [one, other] = [loss('a', 'a is reset'), loss('a', 'a is reset, with what had come')];
    assert.deepEqual(lossesBy([one], [other]), ['with losses', [other], []]);
    assert.equal(agree(looks({ losses: [one] }, { losses: [other] })), true);
  });

  test('say that it comes back if one lost nothing, and what others lost', () => {
    assert.deepEqual(lossesBy([loss('a')], []), ['comes back', [], ['lost: a']]);
    assert.deepEqual(lossesBy([loss('a')], [], []), ['comes back', [], []]);
  });

  test('go on while they find other losses, and brief ones when the first found any', () => {
    assert.equal(agree(looks({ losses: [loss('a')] }, {})), false);
    assert.equal(agree(looks({ losses: [loss('a')] }, { losses: [loss('b')] })), false);
    assert.equal(agreeOrFree(looks({ losses: [loss('a')] })), false);
    assert.equal(agreeOrFree(looks({ losses: [loss('a')] }, { losses: [loss('a')] })), true);
  });

  test('refuse it for what all of them found, and tell that from what one found', () => {
    assert.deepEqual(outcome({ reasons: [SECCOMP] }, { reasons: [SECCOMP] }), ['refused', [SECCOMP], []]);
    const changing = (count: number) => `has ${count} pages in its page tables, but the kernel counted 9`;
    assert.deepEqual(
      outcome({ reasons: [changing(1), SECCOMP] }, { reasons: [changing(2), SECCOMP], moments: [ON_CPU] }),
      ['refused', [SECCOMP], [changing(2), ON_CPU]],
    );
  });

  test('do not refuse it for what is other each time', () => {
    assert.deepEqual(outcome({ reasons: ['is torn at 1'] }, { reasons: ['is torn at 2'] }), [
      'depends',
      [],
      ['is torn at 2'],
    ]);
  });

  test('say that it depends on the moment if none found it free of such reasons', () => {
    assert.deepEqual(outcome({ moments: [ON_CPU] }, { moments: [ON_CPU] }), ['depends', [], [ON_CPU]]);
  });

  test('believe the last two that agree, whatever those before them saw', () => {
    assert.deepEqual(outcome({ reasons: ['is torn'] }, { moments: [ON_CPU] }, {}, {}), [
      'comes back',
      [],
      [],
    ]);
    assert.deepEqual(outcome({}, { reasons: [SECCOMP] }, { reasons: [SECCOMP] }), ['refused', [SECCOMP], []]);
  });

  test('say that it depends if only some found nothing against it, and name what others found', () => {
    assert.deepEqual(outcome({ moments: [ON_CPU] }, {}), ['depends', [], [ON_CPU]]);
    const busy = (fd: number) => ({ reasons: [`has a raw socket open (fd ${fd})`], moments: [ON_CPU] });
    assert.deepEqual(outcome({}, busy(7), busy(8), busy(9), { reasons: [SECCOMP], moments: [ON_CPU] }), [
      'depends',
      [],
      [SECCOMP, ON_CPU],
    ]);
  });

  test('say that it comes back if the last two found nothing against it', () => {
    assert.deepEqual(outcome({}, { moments: [ON_CPU] }, {}, {}), ['comes back', [], []]);
  });

  test('do not refuse a process that only one found', () => {
    assert.deepEqual(outcome({ reasons: [SECCOMP] }), ['depends', [], [SECCOMP]]);
  });

  test('leave out who is gone, and name who is about to go', () => {
    assert.deepEqual(concludeLooks([...looks({}), new Map()]), []);
    assert.deepEqual(outcome({}, { isEnding: true }), ['ending', [], []]);
  });

  test('give the notes that all of them have', () => {
    const [one] = concludeLooks(looks({ notes: ['a', 'b'] }, { notes: ['b', 'c'] }));
    assert.deepEqual(one?.notes, ['b']);
  });
});
