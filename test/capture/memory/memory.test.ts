import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { withoutLoneVvar } from '../../../src/capture/memory/vdso-area.ts';
import { mmStruct } from '../../../src/linux/mm-types.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import type { Vma, VmaKind } from '../../../src/model/memory.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../../vmcore/fixtures.ts';

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

for (const release of releases) {
  test(`a vDSO of ${release} that an execve was setting up is a reason, and all else is read`, () => {
    const kernel = openFixture(release);
    const { pid } = truthOf(release).kinds;
    const { mm } = taskAt(kernel, findTaskByPid(kernel, pid) ?? assert.fail());
    const image = mm + BigInt(kernel.bind(mmStruct).offsetOf('vdsoImage'));
    const patched = openPatched(release, [{ physical: kernel.memory.translate(image), bytes: word(0n) }]);
    const { refused } = captureProcesses(patched, { roots: [pid], includeDescendants: false });
    const { reasons = [] } = refused.find((one) => one.pid === pid) ?? {};
    assert.ok(reasons.some((reason) => /^the memory area \S+ was being set up by an execve$/.test(reason)));
    assert.ok(reasons.every((reason) => !reason.startsWith('cannot be read')));
  });
}
