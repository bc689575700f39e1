import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { x86_64 } from '../../../src/arch/x86-64/index.ts';
import { applyPatches, canPatch, isReadable, withRemainingTime } from '../../../src/capture/calls/timeout.ts';
import type { UserRead } from '../../../src/linux/readers/user-memory.ts';
import { areaOf, memoryOf, threadOf } from '../../criu/processes.ts';

const { registers } = threadOf(1);
const stack = Number(registers.sp);

function seconds(bytes: Uint8Array): number[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return [Number(view.getBigInt64(0, true)), Number(view.getBigInt64(8, true))];
}

describe('a call that is made again', () => {
  it('gets the milliseconds that were left, rounded up', () => {
    const changed = withRemainingTime(x86_64, 'epoll_wait', { ...registers, r10: 60_000n }, 1_500_000n);
    assert.equal(changed?.registers.r10, 2n);
    assert.equal(changed?.patch, undefined);
    assert.equal(withRemainingTime(x86_64, 'poll', registers, 0n)?.registers.dx, 0n);
  });

  it('is told a shorter time in a copy below the red zone, and the time that the program keeps stays', () => {
    const changed = withRemainingTime(x86_64, 'nanosleep', { ...registers, di: 0x1234n }, 2_000_000_005n);
    assert.ok(changed?.patch !== undefined);
    assert.ok(changed.patch.address + 16 <= stack - 128);
    assert.equal(changed.patch.address % 16, 0);
    assert.equal(changed.registers.di, BigInt(changed.patch.address));
    assert.deepEqual(seconds(changed.patch.bytes), [2, 5]);
  });

  it('is told a shorter time by its fifth argument in io_getevents', () => {
    for (const call of ['io_getevents', 'io_pgetevents']) {
      const changed = withRemainingTime(x86_64, call, { ...registers, r8: 0x1234n }, 1_000_000_000n);
      assert.equal(changed?.registers.r8, BigInt(changed?.patch?.address ?? 0), call);
      assert.deepEqual(seconds(changed?.patch?.bytes ?? new Uint8Array()), [1, 0]);
      assert.equal(withRemainingTime(x86_64, call, { ...registers, r8: 0n }, 5n), undefined);
    }
  });

  it('finds the time shorter where the kernel itself would have written it: select, ppoll', () => {
    const select = withRemainingTime(x86_64, 'select', { ...registers, r8: 0x7000n }, 3_000_004_999n);
    assert.equal(select?.patch?.address, 0x7000);
    assert.deepEqual(seconds(select?.patch?.bytes ?? new Uint8Array()), [3, 4]);
    assert.equal(select?.registers.r8, 0x7000n);
  });

  it('waits until the same moment if that is what it was told', () => {
    assert.equal(
      withRemainingTime(x86_64, 'clock_nanosleep', { ...registers, si: 1n, dx: 0x7000n }, 5n),
      undefined,
    );
    assert.equal(
      withRemainingTime(x86_64, 'futex', { ...registers, si: 0x189n, r10: 0x7000n }, 5n),
      undefined,
    );
    assert.notEqual(
      withRemainingTime(x86_64, 'futex', { ...registers, si: 0x80n, r10: 0x7000n }, 5n),
      undefined,
    );
  });

  it('without a timeout stays as it is', () => {
    assert.equal(withRemainingTime(x86_64, 'read', registers, 5n), undefined);
    assert.equal(withRemainingTime(x86_64, 'ppoll', { ...registers, dx: 0n }, 5n), undefined);
  });
});

describe('memory that changes with it', () => {
  const patch = (address: number) => ({ address, bytes: new Uint8Array(16).fill(7) });
  const vmas = [
    areaOf(0x7000, 2),
    areaOf(0x9000, 1, { prot: 1 }),
    areaOf(0xb000, 1, { kind: 'shared-memory' }),
  ];

  it('is the own and writable memory of the process', () => {
    assert.equal(canPatch(vmas, patch(0x7000)), true);
    assert.equal(canPatch(vmas, patch(0x8ff8)), false);
    assert.equal(canPatch(vmas, patch(0x9000)), false);
    assert.equal(canPatch(vmas, patch(0xb000)), false);
  });

  it('is left alone where a page of it cannot be read as a whole', () => {
    const unknown: UserRead = { kind: 'unknown', why: 'it is on a disk' };
    const second = (address: bigint, length: number): UserRead =>
      address + BigInt(length) > 0x8000n ? unknown : { kind: 'bytes', bytes: Buffer.alloc(length) };
    assert.equal(isReadable({ read: second }, patch(0x7ff0)), true);
    assert.equal(isReadable({ read: second }, patch(0x7ff8)), false);
    assert.throws(
      () => applyPatches(memoryOf([]), { read: () => unknown }, [patch(0x7000)]),
      /cannot be read/,
    );
  });

  it('is replaced by whole pages: of old memory, or of zeros where there was none', () => {
    const memory = memoryOf([areaOf(0x7000, 2)]);
    const user = {
      read: (address: bigint, length: number): UserRead => ({
        kind: 'bytes',
        bytes: Buffer.alloc(length, address === 0x7000n ? 1 : 0),
      }),
    };
    const { overrides = [] } = applyPatches(memory, user, [patch(0x7ff8), patch(0x8800)]);
    assert.deepEqual(
      overrides.map(({ address, bytes }) => [address, bytes.length, bytes[0], bytes[0xff8]]),
      [
        [0x7000, 4096, 1, 7],
        [0x8000, 4096, 7, 0],
      ],
    );
    assert.equal(applyPatches(memory, user, []), memory);
    // A page that is replaced already is changed once more, not replaced twice.
    const again = applyPatches({ ...memory, overrides }, user, [patch(0x7ff0)]);
    assert.deepEqual(
      again.overrides?.map(({ address }) => address),
      overrides.map(({ address }) => address),
    );
    const [before, after] = [overrides[0]?.bytes, again.overrides?.[0]?.bytes];
    assert.deepEqual(after?.subarray(0xff8), before?.subarray(0xff8));
    assert.notDeepEqual(after, before);
  });
});
