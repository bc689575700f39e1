import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readArguments } from '../../../src/linux/readers/arguments.ts';
import type { UserRead } from '../../../src/linux/readers/user-memory.ts';

const START = 0x7ffc_0000_0000;

/** What is read of memory with this text at START; nothing is known from `end` on. */
function argumentsIn(text: string, argumentBytes: number, end = text.length, most = 100): string | undefined {
  const all = Buffer.from(text, 'latin1');
  const read = (address: bigint, length: number): UserRead => {
    const at = Number(address) - START;
    return at + length <= end
      ? { kind: 'bytes', bytes: all.subarray(at, at + length) }
      : { kind: 'unknown', why: 'is in swap' };
  };
  const arg_end = START + argumentBytes;
  const places = { arg_start: START, arg_end, env_start: arg_end, env_end: START + text.length };
  return readArguments({ read }, places, most)?.toString('latin1');
}

test('arguments are what lies between their beginning and their end', () => {
  assert.equal(argumentsIn('sleep\x0010\x00HOME=/root\x00', 9), 'sleep\x0010\x00');
  assert.equal(argumentsIn('HOME=/root\x00', 0), undefined);
  assert.equal(argumentsIn('sleep\x0010\x00HOME=/root\x00', 9, 4), undefined);
});

test('a title that a program wrote over its arguments is read into the environment, up to its end', () => {
  assert.equal(argumentsIn('nginx: master process nginx\x00\x00\x00', 6), 'nginx: master process nginx');
  assert.equal(argumentsIn('nginx: master process nginx\x00\x00\x00', 6, 30, 12), 'nginx: maste');
});

test('where the environment cannot be read, what there is of the title is taken', () => {
  assert.equal(argumentsIn('nginx: master process nginx\x00\x00\x00', 6, 8), 'nginx:');
});
