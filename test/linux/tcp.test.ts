import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deferAcceptSeconds } from '../../src/linux/tcp.ts';

/** secs_to_retrans() of net/ipv4/tcp.c: what setsockopt makes of seconds. */
function retransmits(seconds: number): number {
  let [count, timeout, period] = [seconds > 0 ? 1 : 0, 1, 1];
  while (seconds > period && count < 255) {
    count++;
    timeout = Math.min(timeout * 2, 120);
    period += timeout;
  }
  return count;
}

describe('the seconds of TCP_DEFER_ACCEPT', () => {
  it('are those of as many SYN-ACKs', () => {
    assert.deepEqual([0, 1, 2, 3, 9].map(deferAcceptSeconds), [0, 1, 3, 7, 367]);
  });

  it('become the same number of SYN-ACKs again when they are set', () => {
    for (let count = 0; count <= 255; count++) assert.equal(retransmits(deferAcceptSeconds(count)), count);
  });
});
