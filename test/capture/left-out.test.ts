import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { dumpProblems } from '../../src/capture/left-out.ts';
import { summaryInspection } from '../../src/inspect/summary.ts';
import { listedRuns } from '../../src/model/page-runs.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../criu/processes.ts';
import { openFixture, scratch, truthOf, withoutPage } from '../vmcore/fixtures.ts';
import { writeKdump } from '../vmcore/kdump-write.ts';

const whole = openFixture('debian13');
/** A range of several pages, of which the second will be missing. */
const range = whole.physical.ranges.find(({ length }) => length >= 3 * PAGE_SIZE) ?? assert.fail();
const absent = range.physical + PAGE_SIZE;

const runs = listedRuns([{ address: 0x400000, pages: 3, physical: range.physical }]);
const group = groupOf([
  processOf(700, { memory: memoryOf([areaOf(0x400000, 16, { runs })]) }),
  processOf(701, { memory: memoryOf([areaOf(0x400000, 16)], { id: 701 }) }),
]);

const info = [...whole.vmcoreinfo].map(([key, value]) => `${key}=${value}\n`).join('');

function filtered(dumpLevel: number): Kernel {
  const leavesOut = (frame: number) => frame === absent / PAGE_SIZE;
  const path = scratch(`filtered-${dumpLevel}`);
  writeFileSync(path, writeKdump(whole.physical, info, 'none', { dumpLevel, leavesOut }));
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
    assert.match(summaryInspection(kernel).text(), /^left out +unmapped caches, .*makedumpfile -d 31/m);
    assert.doesNotMatch(summaryInspection(whole).text(), /^left out/m);
  });

  it('are told as filtered also where a process is refused before its pages are counted', () => {
    const { pid } = truthOf('debian13').program;
    const { groups } = captureProcesses(whole, { roots: [pid], includeDescendants: false });
    const own = (groups[0]?.processes[0]?.memory?.vmas ?? []).flatMap((area) => [...area.runs]);
    assert.ok(own.length > 0);
    const leavesOut = (frame: number) =>
      own.some(
        ({ physical, pages: count }) => frame >= physical / PAGE_SIZE && frame < physical / PAGE_SIZE + count,
      );
    const path = scratch('filtered-whole');
    writeFileSync(path, writeKdump(whole.physical, info, 'none', { dumpLevel: 31, leavesOut }));
    const main = join(import.meta.dirname, '../../src/cli/main.ts');
    const args = [main, 'extract', path, '--pid', String(pid), '--out', scratch('filtered-images'), '--json'];
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    assert.equal(status, 3);
    const { refused, warnings } = JSON.parse(stdout) as {
      refused: { reasons: string[] }[];
      warnings: string[];
    };
    assert.match(refused[0]?.reasons.join() ?? '', /the page at 0x\w+ was left out of the dump/);
    assert.match(
      warnings.join(),
      /it was filtered, without .*pages of processes.*a dump with makedumpfile -d 0 or -d 1 has them/,
    );
  });

  it('are told as missing where the dump does not say why', () => {
    const [first] = dumpProblems(withoutPage('debian13', absent), group);
    assert.match(first?.reasons.join() ?? '', /^1 of 3 pages of its memory are not in the dump: it is inc/);
  });
});
