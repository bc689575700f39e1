import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { dumpProblems } from '../../src/capture/left-out.ts';
import { summaryReport } from '../../src/inspect/summary.ts';
import { listedRuns } from '../../src/model/page-runs.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../criu/processes.ts';
import { openFixture, scratch, withoutPage } from '../vmcore/fixtures.ts';
import { writeKdump } from '../vmcore/kdump-write.ts';

const PAGE = 4096;
const whole = openFixture('debian13');
/** A range of several pages, of which the second will be missing. */
const range = whole.physical.ranges.find(({ length }) => length >= 3 * PAGE) ?? assert.fail();
const absent = range.physical + PAGE;

const runs = listedRuns([{ address: 0x400000, pages: 3, physical: range.physical }]);
const group = groupOf([
  processOf(700, { memory: memoryOf([areaOf(0x400000, 16, { runs })]) }),
  processOf(701, { memory: memoryOf([areaOf(0x400000, 16)], { id: 701 }) }),
]);

function filtered(dumpLevel: number): Kernel {
  const info = [...whole.vmcoreinfo].map(([key, value]) => `${key}=${value}\n`).join('');
  const leavesOut = (frame: number) => frame === absent / PAGE;
  const path = scratch(`filtered-${dumpLevel}`);
  writeFileSync(path, writeKdump(whole.physical, info, 'zlib', { dumpLevel, leavesOut }));
  return openKernel(path);
}

describe('pages of a process that a dump does not have', () => {
  it('are told before anything is written, as filtered where the dump was', () => {
    assert.deepEqual(dumpProblems(whole, group), []);
    const kernel = filtered(31);
    const [first, ...others] = dumpProblems(kernel, group);
    assert.deepEqual(others, []);
    assert.equal(first?.pid, 700);
    assert.match(
      first?.reasons.join() ?? '',
      /^1 of 3 pages of its memory are not in the dump: it was filtered, without .*pages of processes.* \(makedumpfile -d 31\); a dump with/,
    );
    assert.throws(() => kernel.physical.view(absent, 8), /was left out of the dump/);
    assert.match(summaryReport(kernel).text(), /^left out +unmapped caches, .*makedumpfile -d 31/m);
    assert.doesNotMatch(summaryReport(whole).text(), /^left out/m);
  });

  it('are told as missing where the dump does not say why', () => {
    const [first] = dumpProblems(withoutPage('debian13', absent), group);
    assert.match(first?.reasons.join() ?? '', /^1 of 3 pages of its memory are not in the dump: it is inc/);
  });
});
