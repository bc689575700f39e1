import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { defaultConfig } from '../../../src/config/config.ts';
import { makeReady } from '../../../src/crash-world/stages/files-stage.ts';
import type { ImagedGroup } from '../../../src/crash-world/stages/images-stage.ts';
import { awaitProcedures } from '../../../src/crash-world/stages/procedures.ts';
import { StageSkipped } from '../../../src/crash-world/stages/stage-runner.ts';
import type { ProcedurePlan } from '../../../src/criu/images/crash-procedure.ts';
import { writePreparation } from '../../../src/criu/images/files/preparation.ts';
import { ImageDirectory } from '../../../src/criu/images/image.ts';
import type { CrashProcedure } from '../../../src/model/crash-procedure.ts';
import { noFiles } from '../../../src/model/file.ts';
import { groupOf, processOf } from '../../criu/processes.ts';
import { emptyReport } from '../../report/example.ts';
import { pathFileOf } from '../live-group.ts';

const scratch = mkdtempSync(join(tmpdir(), 'otherworld-image-end-'));
after(() => rmSync(scratch, { recursive: true }));

function imagedGroup(
  pid: number,
  files: Partial<typeof noFiles> = {},
  plans: ProcedurePlan[] = [],
): ImagedGroup {
  const images = new ImageDirectory(join(scratch, `group-${pid}`));
  writePreparation({ ...noFiles, ...files }, images, { writeRuns: () => 0 });
  images.close();
  return { group: groupOf([processOf(pid)]), directory: images.path, pagesBytes: 0, plans };
}

/** Notes which groups' images are ended, and as what. */
function ends(): { ended: string[]; endImages: (group: ImagedGroup, isRestored: boolean) => void } {
  const ended: string[] = [];
  return {
    ended,
    endImages: ({ group }, isRestored) => ended.push(`${group.id} ${isRestored ? 'restored' : 'failed'}`),
  };
}

test('images of a group that is dropped for a changed file are ended', () => {
  const gone = {
    path: join(scratch, 'gone'),
    identity: {
      ...{ fileSystem: 'ext4', onDisk: true, inode: 1, generation: 0, mode: 0o100600 },
      ...{ uid: 0, gid: 0, sizeBytes: 0, rdev: 0 },
    },
  };
  const { ended, endImages } = ends();
  const groups = [imagedGroup(10), imagedGroup(11, { filesToCheck: [gone] })];
  const left = makeReady(groups, emptyReport(), endImages);
  assert.deepEqual(
    left.map(({ directory }) => directory),
    groups.slice(0, 1).map(({ directory }) => directory),
  );
  assert.deepEqual(ended, ['11 failed']);
});

test("a file that cannot be looked at is its group's problem alone", () => {
  const { ended, endImages } = ends();
  const path = join(scratch, 'x'.repeat(300));
  const one = imagedGroup(12);
  const files = { ...one.group.files, files: [{ ...pathFileOf(1, scratch), path }] };
  const groups = [{ ...one, group: { ...one.group, files } }, imagedGroup(13)];
  const left = makeReady(groups, emptyReport(), endImages);
  assert.deepEqual(
    left.map(({ group }) => group.id),
    [13],
  );
  assert.deepEqual(ended, ['12 failed']);
});

test('images that were kept for a procedure are ended when nobody watches procedures', async () => {
  const procedure: CrashProcedure = {
    ...{ address: 0x1000, timeLimitMilliseconds: undefined, resurrections: 0 },
    delivery: { kind: 'signal', signal: 10 },
  };
  const plans: ProcedurePlan[] = [
    { pid: 20, comm: 'p', state: 'delivered', procedure, frame: undefined, mayContinue: true },
  ];
  const { ended, endImages } = ends();
  const found = new Map();
  const running = { releasedAt: 0, started: new Map() };
  const restored = [
    { ...running, group: 20, pids: [20], imaged: { ...imagedGroup(20, {}, plans), found } },
    { ...running, group: 21, pids: [21], imaged: { ...imagedGroup(21), found } },
  ];
  const settings = { ...defaultConfig()['crash-procedure'], timeLimitMinutes: 30 };
  await assert.rejects(
    awaitProcedures(restored, undefined, settings, { report: emptyReport(), endImages }),
    StageSkipped,
  );
  assert.deepEqual(ended, ['20 restored']);
});

test('an image is a new file: it is not written or read through a link', () => {
  const path = join(scratch, 'once');
  mkdirSync(path);
  new ImageDirectory(path).image('pstree').close();
  assert.throws(() => new ImageDirectory(path).image('pstree'), { code: 'EEXIST' });
});
