import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { buffersOf, requestedBytes } from '../../../src/capture/calls/call-buffers.ts';
import type { UserRead } from '../../../src/linux/readers/user-memory.ts';

/** Memory of a program: a list of two buffers at 0x100, a header that names it at 0x200. */
const memory = Buffer.alloc(0x300);
for (const [at, value] of Object.entries({
  ...{ 256: 0x7000, 264: 10, 272: 0x8000, 280: 20 },
  ...{ 528: 0x100, 536: 2 },
}))
  memory.writeBigUInt64LE(BigInt(value), Number(at));
const user = {
  read: (address: bigint, length: number): UserRead =>
    Number(address) + length <= memory.length
      ? { kind: 'bytes', bytes: memory.subarray(Number(address), Number(address) + length) }
      : { kind: 'unmapped' },
};

suite('the buffers of a call', () => {
  const both = [
    { address: 0x7000n, length: 10n },
    { address: 0x8000n, length: 20n },
  ];

  test('are its arguments, or in a list, or in a list that a header names', () => {
    assert.deepEqual(buffersOf('sendto', [3n, 0x7000n, 10n], user), both.slice(0, 1));
    assert.deepEqual(buffersOf('writev', [3n, 0x100n, 2n], user), both);
    assert.deepEqual(buffersOf('recvmsg', [3n, 0x200n], user), both);
  });

  test('are unknown if they cannot be read, or are more than the kernel takes', () => {
    assert.equal(buffersOf('readv', [3n, 0x2f8n, 1n], user), undefined);
    assert.equal(buffersOf('readv', [3n, 0x100n, 1025n], user), undefined);
    assert.equal(buffersOf('sendmsg', [3n, 0x2f8n], user), undefined);
    memory.writeBigUInt64LE(0x7fff_f000n, 0x118);
    assert.equal(buffersOf('writev', [3n, 0x100n, 2n], user), undefined);
  });

  test('have at most as much as the kernel moves at once', () => {
    assert.deepEqual(buffersOf('read', [3n, 0x7000n, 1n << 40n], user), [
      { address: 0x7000n, length: 0x7fff_f000n },
    ]);
    assert.equal(requestedBytes('read', [3n, 0x7000n, 1n << 40n]), 0x7fff_f000);
    assert.equal(requestedBytes('write', [3n, 0x7000n, 5n]), 5);
    assert.equal(requestedBytes('writev', [3n, 0x100n, 2n]), Number.MAX_SAFE_INTEGER);
  });
});
