import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutLoneVvar } from '../../src/capture/memory.ts';
import type { Vma, VmaKind } from '../../src/model/memory.ts';
import { listedRuns } from '../../src/model/page-runs.ts';

function area(kind: VmaKind, start: number): Vma {
  return {
    ...{ start, end: start + 0x1000, kind, prot: 1, offsetBytes: 0, advice: [], runs: listedRuns([]) },
    ...{ growsDown: false, heap: false, stack: false, hugetlb: false, locked: false, noReserve: false },
  };
}

test('the data of a vDSO goes with it: CRIU has no place for it alone', () => {
  const [anonymous, vvar, vdso] = [area('anonymous', 0), area('vvar', 0x2000), area('vdso', 0x3000)];
  const notes: string[] = [];
  assert.deepEqual(withoutLoneVvar([anonymous, vvar, vdso], { notes }), [anonymous, vvar, vdso]);
  assert.deepEqual(withoutLoneVvar([anonymous, vdso], { notes }), [anonymous, vdso]);
  assert.deepEqual(withoutLoneVvar([anonymous], { notes }), [anonymous]);
  assert.deepEqual(notes, []);
  assert.deepEqual(withoutLoneVvar([anonymous, vvar], { notes }), [anonymous]);
  assert.deepEqual(notes, ['its area [vvar] is gone: it had unmapped the vDSO that reads it']);
});
