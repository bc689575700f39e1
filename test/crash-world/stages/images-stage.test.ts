import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { capturedReport, noteTies } from '../../../src/crash-world/incident/process-reports.ts';
import { imageGroups } from '../../../src/crash-world/stages/images-stage.ts';
import { reportSchema } from '../../../src/report/schema.ts';
import { emptyReport } from '../../report/example.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-image-stage-'));
after(() => rmSync(directory, { recursive: true }));

for (const release of releases) {
  test(`what the restore of a process of ${release} will do besides CRIU is in the report`, () => {
    const kernel = openFixture(release);
    const { pid } = truthOf(release).kinds;
    const { groups, refused, ties } = captureProcesses(kernel, { roots: [pid], includeDescendants: false });
    assert.deepEqual(refused, []);
    const report = emptyReport();
    const known = { selected: [], candidates: [], rules: [] };
    report.processes = groups.flatMap((group) =>
      group.processes.map((process) => capturedReport(process, group, known)),
    );
    noteTies(report, ties);
    const occasion = { id: report.id, panicTimeNanoseconds: 0n };
    const images = imageGroups(kernel, groups, join(directory, release), occasion, report);
    assert.equal(images.length, 1);
    const { groups: plans, processes } = reportSchema.parse(report);
    assert.deepEqual(
      plans?.map(({ group }) => group),
      [pid],
    );
    assert.ok(plans?.[0]?.plan.includes('calls criu restore with --file-locks'));
    const plan = processes[0]?.plan ?? [];
    assert.ok(plan.includes(`pause is made again: thread ${pid}`));
    assert.ok(plan.includes('arms interval timers with what was left: real'));
    assert.ok(plan.includes('sets timers by the wall clock: fd 34, fd 36'));
  });
}
