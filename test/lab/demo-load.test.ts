import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { LOAD_BATCH, LOAD_KEYS, wrongKeys } from '../../lab/demo/load.ts';
import { computingRows, counterRows, loadRows } from '../../lab/demo/verify.ts';

/** The values of all keys when so many writes, numbered from 0 on, have been done. */
function valuesAfter(writes: number): (number | undefined)[] {
  const values = new Array<number | undefined>(LOAD_KEYS);
  for (let n = 0; n < writes; n++) values[n % LOAD_KEYS] = n;
  return values;
}

suite('what Redis has of the acknowledged writes', () => {
  const acknowledged = LOAD_KEYS * 3 + 1700;

  test('is whole with all of them, and with those that were on their way', () => {
    for (const more of [0, 1, LOAD_BATCH, 2 * LOAD_BATCH]) {
      assert.equal(wrongKeys({ acknowledged, values: valuesAfter(acknowledged + more) }), 0, `${more}`);
    }
    const few = LOAD_KEYS / 2;
    assert.equal(wrongKeys({ acknowledged: few, values: valuesAfter(few) }), 0);
  });

  test('is not if the last ones are lost', () => {
    assert.equal(wrongKeys({ acknowledged, values: valuesAfter(acknowledged - 1) }), 1);
    assert.equal(wrongKeys({ acknowledged, values: valuesAfter(acknowledged - 250) }), 250);
  });

  test('is not if a key is gone, has the value of another, or one that nobody had sent', () => {
    for (const value of [undefined, acknowledged - 1, acknowledged + LOAD_KEYS]) {
      const values = valuesAfter(acknowledged);
      values[1700] = value;
      assert.equal(wrongKeys({ acknowledged, values }), 1, `${value}`);
    }
  });

  test('is nothing if Redis does not answer', () => {
    assert.equal(wrongKeys({ acknowledged, values: [undefined] }), LOAD_KEYS);
  });
});

suite('the table of the demo', () => {
  const acknowledged = LOAD_KEYS * 3;
  const before = { processes: 'joe 7 joe\nredis 8 redis-server' };
  const what = 'the connection is reset: its other end was that of PID 9 (python3)';
  const losses = [{ kind: 'connections' as const, what }];
  const outcome = 'restored' as const;
  const report = { processes: [{ pid: 8, outcome, losses }] };
  const load = { pid: 9, requestsPerSecond: 1, acknowledged: acknowledged - 200 };
  const ends = { isGone: true, isReset: true, servesNew: true };
  const loadAfter = {
    ...{ acknowledged, acknowledgedBefore: acknowledged - 100, values: valuesAfter(acknowledged) },
    ...ends,
  };
  const verdicts = (evidence: Partial<Parameters<typeof loadRows>[0]>): boolean[] =>
    loadRows({ before, load, loadAfter, report, ...evidence }).map(({ ok }) => ok);

  test('says that Redis was under load only if its writes went on up to the panic', () => {
    assert.deepEqual(verdicts({}), [true, true]);
    const stoodStill = { ...loadAfter, acknowledgedBefore: load.acknowledged };
    assert.deepEqual(verdicts({ loadAfter: stoodStill }), [false, true]);
    const wentBack = { ...loadAfter, acknowledgedBefore: acknowledged + 100 };
    assert.deepEqual(verdicts({ loadAfter: wentBack }), [false, true]);
    const first = { ...load, acknowledged: 0 };
    assert.deepEqual(verdicts({ load: first }), [false, true], 'no record at the beginning');
  });

  test('looks for the reset of the client in what is said of Redis itself', () => {
    const ofAnother = { processes: [{ pid: 7, outcome, losses }] };
    assert.deepEqual(verdicts({ report: ofAnother }), [true, false]);
    assert.deepEqual(verdicts({ before: { processes: 'joe 7 joe' } }), [true, false]);
  });

  test('says that the computation outlived the panic only if it was restored', () => {
    const stageZero = { saved: 2, processors: 2 };
    const orbits = { pid: 5, known: 'abc', isEarly: true };
    const verdict = (
      outcomes: readonly ('restored' | 'refused')[],
      more: object = {},
    ): boolean | undefined => {
      const processes = outcomes.map((outcome) => ({ pid: 5, outcome }));
      const evidence = { orbits, orbitsAfter: 'abc', report: { stageZero, processes }, ...more };
      return computingRows(evidence)[0]?.ok;
    };
    assert.equal(verdict(['restored']), true);
    assert.equal(verdict(['refused']), false);
    assert.equal(verdict([]), false, 'it had ended before the panic');
    assert.equal(verdict(['restored'], { orbitsAfter: 'abd' }), false);
    assert.equal(verdict(['restored'], { orbits: { ...orbits, isEarly: false } }), false);
  });
});

suite('the counter', () => {
  const before = {
    ...{ pid: 7, sizeMiB: 256, threads: 2, errors: 0, passes: 1, wordsChecked: 10, vectorChecks: 3 },
    ...{ leastCheckedSinceLargestGap: 5, wordsOfThread: 4, monotonicNanoseconds: 1, realtimeNanoseconds: 1 },
    ...{ largestMonotonicGapNanoseconds: 1, largestRealtimeGapNanoseconds: 2 },
  };
  const after = {
    ...{ ...before, wordsChecked: 11, vectorChecks: 4 },
    ...{ largestMonotonicGapNanoseconds: 1e9, largestRealtimeGapNanoseconds: 60e9 },
  };
  const results = (now: typeof after | undefined) => counterRows(before, now).map(({ ok }) => ok);

  test('goes on, has checked all its memory since, and has seen little of the outage', () => {
    assert.deepEqual(results(after), [true, true, true, true]);
    assert.deepEqual(results({ ...after, errors: 1 }), [true, true, false, true]);
  });

  test('that has not come back is gone in each row, and none is true', () => {
    assert.deepEqual(results(undefined), [false, false, false, false]);
    for (const { after: text } of counterRows(before, undefined)) assert.equal(text, 'gone');
  });
});
