import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setsBase } from '../../../src/capture/arch/index.ts';
import { staleBases } from '../../../src/capture/thread.ts';
import type { Vma } from '../../../src/model/memory.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { MadeProcess } from '../../vmcore/made-process.ts';

const BASE = 0x7f00_0000_0000;
const PAGES = 8;

const area: Vma = {
  ...{ start: BASE, end: BASE + PAGES * PAGE_SIZE, kind: 'anonymous', prot: 5, offsetBytes: 0 },
  ...{ growsDown: false, heap: false, stack: false, hugetlb: false, locked: false, noReserve: false },
  ...{ advice: [], runs: listedRuns([]) },
};

/** A process that has these bytes at an offset; page 3 is not in its page tables. */
function made(code: readonly number[], offset = 100): MadeProcess {
  const kernel = new MadeKernel('debian13');
  const process = new MadeProcess(kernel, [{ start: BASE, pages: PAGES }]);
  const content = Buffer.alloc(PAGES * PAGE_SIZE, 0x90);
  content.set(code, offset);
  // Neighbours in the process, but not in memory.
  for (const page of [5, 4, 2, 1, 0]) {
    const pfn = kernel.frame();
    const bytes = content.subarray(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    kernel.write(kernel.physicalToVirtual(pfn * PAGE_SIZE), bytes);
    process.map(BASE + page * PAGE_SIZE, pfn);
  }
  return process;
}

/** Which bases it sets. */
function bases(code: readonly number[], offset = 100, prot = 5): string[] {
  const { user } = made(code, offset);
  return (['fs', 'gs'] as const).filter((base) => setsBase(base, user, [{ ...area, prot }]));
}

test('a program that sets its FS or GS base itself is known by its code', () => {
  for (let register = 0; register < 8; register++) {
    assert.deepEqual(bases([0xf3, 0x48, 0x0f, 0xae, 0xd0 + register]), ['fs']);
    assert.deepEqual(bases([0xf3, 0x49, 0x0f, 0xae, 0xd8 + register]), ['gs']);
  }
  assert.deepEqual(bases([0xf3, 0x0f, 0xae, 0xd7]), ['fs']);
});

test('across pages as well, and at the end of what is there', () => {
  for (let before = 1; before <= 4; before++) {
    for (const page of [1, 2, 5])
      assert.deepEqual(bases([0xf3, 0x48, 0x0f, 0xae, 0xd0], page * PAGE_SIZE - before), ['fs']);
  }
  assert.deepEqual(bases([0xf3, 0x0f, 0xae, 0xd0], 6 * PAGE_SIZE - 4), ['fs']);
});

test('no other instruction is taken for it', () => {
  // LFENCE, MFENCE, CLWB, RDFSBASE, RDGSBASE, FXRSTOR, and the right ones without their prefix.
  for (const code of [
    [0x0f, 0xae, 0xe8],
    [0x0f, 0xae, 0xf0],
    [0x66, 0x0f, 0xae, 0x30],
    [0xf3, 0x48, 0x0f, 0xae, 0xc0],
    [0xf3, 0x48, 0x0f, 0xae, 0xc8],
    [0x48, 0x0f, 0xae, 0x08],
    [0x90, 0x48, 0x0f, 0xae, 0xd0],
    [0xf3, 0x90, 0x0f, 0xae, 0xd0],
  ])
    assert.deepEqual(bases(code), []);
});

test('what cannot be executed, or was never brought in, does not count', () => {
  assert.deepEqual(bases([0xf3, 0x48, 0x0f, 0xae, 0xd0], 100, 3), []);
  assert.deepEqual(bases([0xf3, 0x48, 0x0f, 0xae, 0xd0], 3 * PAGE_SIZE + 100), []);
  // Not one instruction: the page between is not there.
  assert.deepEqual(
    bases([0xf3, 0x48, ...Array.from({ length: PAGE_SIZE }, () => 0), 0x0f, 0xae, 0xd0], 3 * PAGE_SIZE - 2),
    [],
  );
});

test('a thread on a CPU is told of each base that nothing has saved', () => {
  const both = [0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x48, 0x0f, 0xae, 0xd8];
  const owner = { user: made(both).user, vmas: [area] };
  const reason = (base: string): string =>
    `was on a CPU, and may have set its ${base} base itself: its code has WR${base}BASE`;
  assert.deepEqual(staleBases(['fs', 'gs'], owner), [reason('FS'), reason('GS')]);
  assert.deepEqual(staleBases(['fs'], owner), [reason('FS')]);
  assert.deepEqual(staleBases(['fs', 'gs'], { user: made([0x90]).user, vmas: [area] }), []);
});
