import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { copiesIter, movedBytes, waitsForAll } from '../../../src/capture/calls/socket-call.ts';

const [MSG_TRUNC, MSG_WAITALL, MSG_ERRQUEUE, MSG_SOCK_DEVMEM] = [0x20n, 0x100n, 0x2000n, 0x200_0000n];
const recvfrom = (flags: bigint, address = 0n): bigint[] => [3n, 0x7000n, 100n, flags, address, 0n];
const recvmsg = (flags: bigint): bigint[] => [3n, 0x7000n, flags];

suite('a call on a socket', () => {
  test('that throws bytes away does not count them: not a byte counted is no word of what it took', () => {
    for (const flags of [MSG_TRUNC, MSG_TRUNC | MSG_WAITALL]) {
      assert.equal(movedBytes('recvfrom', recvfrom(flags), 0), undefined);
      assert.equal(movedBytes('recvmsg', recvmsg(flags), 0), undefined);
    }
    assert.equal(movedBytes('recvmsg', recvmsg(MSG_SOCK_DEVMEM), 0), undefined);
    assert.equal(movedBytes('recvfrom', recvfrom(MSG_WAITALL), 0), 0);
    assert.equal(waitsForAll('recvfrom', recvfrom(MSG_TRUNC)), false);
    assert.equal(waitsForAll('recvfrom', recvfrom(MSG_TRUNC | MSG_WAITALL)), true);
    assert.equal(waitsForAll('recvmsg', recvmsg(MSG_WAITALL)), true);
  });

  test('that reads the error queue takes its message before it counts', () => {
    assert.equal(movedBytes('recvmsg', recvmsg(MSG_ERRQUEUE), 0), undefined);
    assert.equal(movedBytes('recvfrom', recvfrom(MSG_ERRQUEUE), 0), undefined);
  });

  test('that would give more than a number of bytes does not get the number alone', () => {
    assert.equal(movedBytes('recvmsg', recvmsg(0n), 7), undefined);
    assert.equal(movedBytes('recvmsg', recvmsg(0n), 0), 0);
    assert.equal(movedBytes('recvfrom', recvfrom(0n, 0x8000n), 7), undefined);
    assert.equal(movedBytes('recvfrom', recvfrom(0n), 7), 7);
  });

  test('that sends, or knows nothing of messages, gets the number whatever its arguments are', () => {
    assert.equal(movedBytes('sendmsg', recvmsg(MSG_TRUNC), 7), 7);
    assert.equal(movedBytes('read', recvfrom(MSG_TRUNC), 7), 7);
    assert.deepEqual(['read', 'writev', 'sendto', 'recvmsg'].map(copiesIter), [true, true, false, false]);
  });
});
