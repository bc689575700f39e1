import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { limitsOf } from '../../src/cli/report.ts';
import { defaultConfig } from '../../src/config/config.ts';
import { endGroupImages, endImages, makeImagesDirectory } from '../../src/report/images.ts';
import { createIncident, listIncidents, saveReport } from '../../src/report/incident.ts';
import { configuredLimits, type Limits, prune, removeIncident } from '../../src/report/prune.ts';
import type { ProcessReport } from '../../src/report/schema.ts';
import { emptyReport } from './example.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-prune-'));
after(() => rmSync(directory, { recursive: true }));

let number = 0;
/** A machine's incidents and images, and what was in two groups of each of its incidents. */
function machine() {
  const root = join(directory, `machine-${number++}`);
  const [incidents, images] = [join(root, 'incidents'), join(root, 'images')];
  const incident = (at: string, outcomes: Record<number, ProcessReport['outcome']> = {}): string => {
    const id = createIncident(new Date(at), incidents);
    const nothing = { reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] };
    const processes = Object.entries(outcomes).map(([group, outcome]) => {
      mkdirSync(join(images, id, `group-${group}`), { recursive: true });
      writeFileSync(join(images, id, `group-${group}`, 'pages-1.img'), 'secret');
      writeFileSync(join(images, id, `group-${group}`, 'restore.log'), `of ${group}`);
      return { pid: Number(group), comm: 'p', group: Number(group), outcome, ...nothing };
    });
    saveReport({ ...emptyReport(), id, processes }, incidents);
    return id;
  };
  const left = (id: string): string[] =>
    existsSync(join(images, id))
      ? readdirSync(join(images, id), { recursive: true, encoding: 'utf8' }).sort()
      : [];
  return { incidents, images, incident, left };
}

const limits: Limits = { ...configuredLimits(defaultConfig()), youngMinutes: 0 };
const now = Date.parse('2026-06-01T00:00:00Z');

suite('images', () => {
  for (const [keep, stays] of [
    ['never', []],
    ['failed', ['group-2', 'group-3']],
    ['always', ['group-1', 'group-2', 'group-3']],
  ] as const) {
    test(`of groups that were never ended are ended by the report: ${keep}`, () => {
      const { incidents, images, incident, left } = machine();
      const processes = { 1: 'restored', 2: 'failed', 3: 'pending' } as const;
      const id = incident('2026-05-31T12:00:00Z', processes);
      prune({ ...limits, keepImages: keep }, { incidents, images, now });
      assert.deepEqual(
        left(id).filter((name) => !name.includes('/')),
        stays,
      );
      assert.equal(readFileSync(join(incidents, id, 'restore-2.log'), 'utf8'), 'of 2');
      assert.equal(readFileSync(join(incidents, id, 'restore-1.log'), 'utf8'), 'of 1');
    });
  }

  test('of a group that is ended at once leave its log with the incident', () => {
    const { incidents, images, incident, left } = machine();
    const id = incident('2026-05-31T12:00:00Z', { 1: 'failed' });
    const end = { keep: 'never', isRestored: false } as const;
    assert.deepEqual(endGroupImages(join(images, id), 1, join(incidents, id), end), []);
    assert.deepEqual(left(id), []);
    assert.equal(readFileSync(join(incidents, id, 'restore-1.log'), 'utf8'), 'of 1');
  });

  test('of an incident whose report is damaged stay, unless none is kept', () => {
    const { incidents, images, incident, left } = machine();
    const id = incident('2026-05-31T12:00:00Z', { 1: 'restored' });
    writeFileSync(join(incidents, id, 'report.json'), '{');
    prune(limits, { incidents, images, now });
    assert.ok(left(id).includes('group-1/pages-1.img'));
    prune({ ...limits, keepImages: 'never' }, { incidents, images, now });
    assert.ok(!existsSync(join(images, id)));
  });

  test('are removed when they are too old, also without an incident; the report stays', () => {
    const { incidents, images, incident } = machine();
    const old = incident('2026-04-01T12:00:00Z', { 1: 'failed' });
    const orphan = '2026-04-02T12-00-00Z';
    mkdirSync(join(images, orphan));
    const young = incident('2026-05-31T12:00:00Z', { 1: 'failed' });
    mkdirSync(join(images, 'not ours'));
    const pruned = prune(limits, { incidents, images, now });
    assert.deepEqual(pruned, { incidents: [], images: [old, orphan], problems: [] });
    assert.deepEqual(listIncidents(incidents), [old, young]);
    assert.deepEqual(readdirSync(images).sort(), [young, 'not ours']);
  });

  test('of the incident that is at work are left alone', () => {
    const { incidents, images, incident, left } = machine();
    const id = incident('2026-05-31T12:00:00Z', { 1: 'restored' });
    prune({ ...limits, keepImages: 'never' }, { incidents, images, now, unfinished: id });
    assert.ok(left(id).includes('group-1/restore.log'));
  });

  test('are not looked for behind a link', () => {
    const { incidents, images, incident } = machine();
    const id = incident('2026-05-31T12:00:00Z', { 1: 'restored' });
    const elsewhere = join(directory, `elsewhere-${number++}`);
    mkdirSync(join(elsewhere, 'group-1'), { recursive: true });
    writeFileSync(join(elsewhere, 'group-1', 'precious'), '');
    rmSync(join(images, id, 'group-1'), { recursive: true });
    symlinkSync(join(elsewhere, 'group-1'), join(images, id, 'group-1'));
    assert.deepEqual(endImages({ ...emptyReport(), id }, images, incidents, 'never'), []);
    assert.ok(existsSync(join(elsewhere, 'group-1', 'precious')));
  });
});

suite('incidents', () => {
  test('that are too many or too old go with their images, the oldest first; the latest stays', () => {
    const { incidents, images, incident } = machine();
    const days = ['2024-01-01', '2024-01-02', '2025-12-01', '2026-01-01', '2026-05-01'];
    const ids = days.map((day) => incident(`${day}T12:00:00Z`, { 1: 'failed' }));
    const removed = (more: Partial<Limits>): readonly string[] =>
      prune({ ...limits, ...more }, { incidents, images, now }).incidents;
    assert.deepEqual(removed({}), ids.slice(0, 2), 'older than a year');
    assert.deepEqual(removed({ incidents: 2 }), ids.slice(2, 3));
    assert.deepEqual(removed({ incidentsMaxAgeDays: 1 }), ids.slice(3, 4));
    assert.deepEqual(listIncidents(incidents), ids.slice(4));
    assert.deepEqual(readdirSync(images).sort(), []);
  });

  test('that the protection against crash loops counts stay', () => {
    const { incidents, images, incident } = machine();
    const ids = [10, 30, 50].map((minute) => incident(`2026-05-31T23:${minute}:00Z`));
    const few = { ...limits, incidents: 1, youngMinutes: 45 };
    assert.deepEqual(prune(few, { incidents, images, now }).incidents, ids.slice(0, 1));
  });

  test('of directories that others can write to are left alone, and named', () => {
    const { incidents, images, incident } = machine();
    const id = incident('2026-05-31T12:00:00Z', { 1: 'failed' });
    chmodSync(images, 0o777);
    assert.match(
      removeIncident(id, images, incidents).join(),
      /is left alone: .*images can be written by others/,
    );
    assert.deepEqual(listIncidents(incidents), [id]);
    assert.match(
      prune({ ...limits, keepImages: 'never' }, { incidents, images, now }).problems.join(),
      /left alone/,
    );
    chmodSync(images, 0o700);
    assert.deepEqual(removeIncident(id, images, incidents), []);
    assert.ok(!existsSync(join(images, id)));
    assert.ok(!existsSync(join(incidents, id)));
  });
});

test('what the command line says holds instead of the configuration', () => {
  assert.deepEqual(limitsOf(limits, {}), limits);
  assert.equal(limitsOf(limits, { keep: 3 }).incidents, 3);
  assert.equal(limitsOf(limits, { olderThan: 0.5 }).incidentsMaxAgeDays, 0.5);
  assert.deepEqual(limitsOf(limits, { images: true }), {
    ...limits,
    incidents: Number.POSITIVE_INFINITY,
    incidentsMaxAgeDays: 0,
    imagesMaxAgeDays: 0,
    keepImages: 'never',
  });
  assert.equal(limitsOf(limits, { images: true, olderThan: 2 }).keepImages, 'failed');
  assert.throws(() => limitsOf(limits, { images: true, keep: 1 }), /--images goes with --older-than/);
});

test('images are not put where others can write', () => {
  const place = join(directory, `place-${number++}`);
  makeImagesDirectory(join(place, 'images'));
  assert.equal(statSync(join(place, 'images')).mode & 0o777, 0o700);
  chmodSync(place, 0o775);
  assert.throws(
    () => makeImagesDirectory(join(place, 'images')),
    /place-\d+ can be written by others \(mode 775\): set images\.directory to one that only root can write to/,
  );
});
