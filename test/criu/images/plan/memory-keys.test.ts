import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { memoryKeysOf } from '../../../../src/criu/images/plan/memory-keys.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../../processes.ts';

describe('memory protection keys', () => {
  it('are planned with the rights of the first thread', () => {
    const withKeys = processOf(7, {
      memory: memoryOf([areaOf(0x1000, 1), areaOf(0x8000, 2, { prot: 7, protectionKey: 3 })], {
        protectionKeys: [1, 3],
      }),
    });
    const [thread = assert.fail()] = withKeys.threads;
    const pkru = { number: 9, data: Uint8Array.from([0x54, 0x55, 0x55, 0x51, 0, 0, 0, 0]) };
    const threads = [{ ...thread, fpu: { ...thread.fpu, components: [pkru] } }];
    const without = processOf(8, { memory: memoryOf([]) });
    assert.deepEqual(memoryKeysOf(groupOf([{ ...withKeys, threads }, without])), [
      {
        ...{ pid: 7, keys: [1, 3], pkru: 0x5155_5554 },
        areas: [{ start: 0x8000, bytes: 8192, prot: 7, key: 3 }],
      },
    ]);
  });
});
