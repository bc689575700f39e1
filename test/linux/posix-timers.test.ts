import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { realTimeLeft } from '../../src/capture/timers.ts';
import { timeLeft } from '../../src/linux/posix-timers.ts';

describe('a timer that is not queued', () => {
  const [SIGEV_SIGNAL, SIGEV_NONE] = [0, 1];
  const idle = (left: bigint) => ({ active: false, remaining: 0n, left });

  it('goes on with its next period if its signal was not taken yet', () => {
    assert.equal(timeLeft(idle(-250n), SIGEV_SIGNAL, 100n), 50n);
    assert.equal(realTimeLeft(idle(-250n), 100n), 50n);
  });

  it('has ended if it has no period', () => {
    assert.equal(timeLeft(idle(-250n), SIGEV_SIGNAL, 0n), 0n);
    assert.equal(realTimeLeft(idle(-250n), 0n), 0n);
  });

  it('runs all the same if it has no signal', () => {
    assert.equal(timeLeft(idle(300n), SIGEV_NONE, 0n), 300n);
    assert.equal(timeLeft(idle(-300n), SIGEV_NONE, 0n), 0n);
    assert.equal(timeLeft(idle(-250n), SIGEV_NONE, 100n), 50n);
  });

  it('and one that is queued has what is left', () => {
    assert.equal(timeLeft({ active: true, remaining: 7n, left: 7n }, SIGEV_SIGNAL, 100n), 7n);
    assert.equal(realTimeLeft({ active: true, remaining: 7n, left: 7n }, 100n), 7n);
  });
});
