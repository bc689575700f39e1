import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { captureProcesses } from '../../../src/capture/index.ts';
import { capturedReport, noteTies } from '../../../src/crash-world/incident/process-reports.ts';
import { imageGroups, pinned } from '../../../src/crash-world/stages/images-stage.ts';
import { listedRuns } from '../../../src/model/page-runs.ts';
import { adviceFor } from '../../../src/report/advice.ts';
import { reportSchema } from '../../../src/report/schema.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import type { PhysicalRange } from '../../../src/vmcore/physical.ts';
import { areaOf, groupOf, memoryOf, processOf } from '../../criu/processes.ts';
import { withDescriptorsLeft } from '../../descriptors.ts';
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

const MIB = 2 ** 20;

/** A group of one process with so many pages of memory. */
function groupWith(pid: number, pages: number): ReturnType<typeof groupOf> {
  const runs = listedRuns([{ address: 0x40_0000, pages, physical: 0 }]);
  const memory = memoryOf([areaOf(0x40_0000, pages, { runs })], { id: pid });
  return groupOf([processOf(pid, { memory })]);
}

/** A dead kernel without anything but memory. */
function kernelOf(writeRuns: (fd: number, runs: readonly PhysicalRange[]) => number): Kernel {
  return { physical: { writeRuns } } as unknown as Kernel;
}

function writeZeros(fd: number, runs: readonly PhysicalRange[]): number {
  const zeros = Buffer.alloc(MIB);
  let sum = 0;
  for (const { length } of runs)
    for (let left = length; left > 0; ) {
      const written = writeSync(fd, zeros, 0, Math.min(left, MIB));
      left -= written;
      sum += written;
    }
  return sum;
}

/** Mounts can be made by root where nothing forbids it. */
const mayMount = spawnSync('unshare', ['--mount', 'true']).status === 0;

suite('where there is not room for the images of all', { skip: !mayMount && 'no mounts here' }, () => {
  const small = join(directory, 'small');
  before(() => {
    mkdirSync(small);
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'none', small]);
    assert.equal(status, 0);
  });
  after(() => spawnSync('umount', [small]));

  const pagesOf = (mebibytes: number): number => (mebibytes * MIB) / 4096;
  const occasion = { id: 'x', panicTimeNanoseconds: 0n };
  const [large, middle, little] = [
    groupWith(900, pagesOf(20)),
    groupWith(901, pagesOf(12)),
    groupWith(902, 10),
  ];
  const groups = [large, middle, little];

  function image(kernel: Kernel): { back: number[]; reasons: Map<number, string> } {
    const report = emptyReport();
    report.processes = groups.map(({ id, processes: [process] }) =>
      capturedReport(process!, groups.find((group) => group.id === id)!, {
        ...{ selected: [], candidates: [], rules: [] },
      }),
    );
    const images = join(small, 'images');
    mkdirSync(images);
    const imaged = imageGroups(kernel, groups, images, occasion, report);
    const back = imaged.map(({ group }) => group.id);
    for (const { directory } of imaged) pinned.release(directory);
    assert.deepEqual(
      readdirSync(images).toSorted(),
      back.map((id) => `group-${id}`),
    );
    rmSync(images, { recursive: true });
    const failed = report.processes.filter(({ outcome }) => outcome === 'failed');
    return { back, reasons: new Map(failed.map(({ pid, reasons }) => [pid, reasons.join()])) };
  }

  test('the largest does not come back, which is not begun, and all others do', () => {
    const { back, reasons } = image(kernelOf(writeZeros));
    assert.deepEqual(back, [901, 902]);
    assert.deepEqual([...reasons.keys()], [900]);
    const said =
      /^its images need 2[01] MiB, and 1\d MiB are free in .*small\/images, [234] of them for the rest/;
    assert.match(reasons.get(900) ?? '', said);
    assert.match(adviceFor(reasons.get(900) ?? '') ?? '', /^make room there/);
  });

  test('one that runs out of it after all leaves nothing behind, and is named', () => {
    // The disk is filled by somebody else while the second is written.
    const other = join(small, 'other');
    const kernel = kernelOf((fd, runs) => {
      const bytes = runs.reduce((sum, { length }) => sum + length, 0);
      if (bytes > 11 * MIB && bytes < 13 * MIB) writeFileSync(other, Buffer.alloc(25 * MIB));
      try {
        return writeZeros(fd, runs);
      } finally {
        rmSync(other, { force: true });
      }
    });
    const { back, reasons } = image(kernel);
    // What it had taken is free again, and the largest fits.
    assert.deepEqual(back, [900, 902]);
    assert.match(
      reasons.get(901) ?? '',
      /^its images could not be written: .*pages-1\.img: ENOSPC.*\(\d+ MiB are free in .*small\/images\)$/,
    );
    assert.match(adviceFor(reasons.get(901) ?? '') ?? '', /^make room there/);
  });
});

suite('where descriptors are few', () => {
  const occasion = { id: 'x', panicTimeNanoseconds: 0n };
  const one = groupWith(800, 16);
  const many = groupOf(Array.from({ length: 380 }, (_, i) => groupWith(1000 + i, 17).processes[0]!));

  function image(name: string, kernel: Kernel): number[] {
    const images = join(directory, name);
    mkdirSync(images);
    return withDescriptorsLeft(370, () => {
      const imaged = imageGroups(kernel, [many, one], images, occasion, emptyReport());
      for (const { directory } of imaged) pinned.release(directory);
      return imaged.map(({ group }) => group.id);
    });
  }

  test('groups with more files than these are written', () => {
    assert.deepEqual(image('many-files', kernelOf(writeZeros)), [1000, 800]);
  });

  test('and none is left, nothing is thrown', () => {
    const taken: number[] = [];
    const takeAll = (): number => {
      for (;;) taken.push(openSync('/dev/null', 'r'));
    };
    try {
      assert.deepEqual(image('no-files', kernelOf(takeAll)), []);
    } finally {
      for (const fd of taken) closeSync(fd);
    }
  });
});
