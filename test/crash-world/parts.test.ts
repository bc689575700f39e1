import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { missingCpus, parseCpuList, runningApicIds } from '../../src/crash-world/machine/cpus.ts';
import { readMemory } from '../../src/crash-world/machine/meminfo.ts';
import { mountedPaths } from '../../src/crash-world/mounts/mounts.ts';
import { StageRunner, StageSkipped } from '../../src/crash-world/stages/stage-runner.ts';
import { neededMemory } from '../../src/crash-world/stages/take-back.ts';
import { removeDropIn, writeSettleUnit } from '../../src/crash-world/systemd/units.ts';
import type { IncidentReport } from '../../src/report/schema.ts';
import { emptyReport } from '../report/example.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-crash-world-'));
after(() => rmSync(directory, { recursive: true }));

test('a stage that fails is reported, and the next one runs', async () => {
  const saved: IncidentReport[] = [];
  const stages = new StageRunner(emptyReport(), (report) => saved.push(structuredClone(report)));
  const failed = await stages.run('first', () => {
    throw new Error('no luck', { cause: new Error('bad disk') });
  });
  const skipped = await stages.run('second', () => {
    throw new StageSkipped('nothing to do');
  });
  const done = await stages.run('third', () => 3);
  assert.deepEqual([failed, skipped, done], [undefined, undefined, 3]);
  assert.deepEqual(
    saved.at(-1)?.stages.map(({ name, outcome }) => `${name} ${outcome}`),
    ['first failed', 'second skipped', 'third done'],
  );
  assert.deepEqual(saved.at(-1)?.errors, ['first: no luck: bad disk']);
  assert.equal(saved.length, 3);
});

test('a report that cannot be saved stops nothing', async () => {
  const stages = new StageRunner(emptyReport(), () => {
    throw new Error('read-only file system');
  });
  assert.equal(await stages.run('only', () => 1), 1);
});

test('lists of CPUs are read as sysfs writes them', () => {
  assert.deepEqual(parseCpuList('0-2,5\n'), [0, 1, 2, 5]);
  assert.deepEqual(parseCpuList('0\n'), [0]);
  assert.deepEqual(parseCpuList('\n'), []);
  assert.equal(missingCpus(2, 2, '').length, 0);
  assert.match(missingCpus(2, 1, 'maxcpus=1')[0] ?? '', /^1 of 2 CPUs .*firmware booted/);
  assert.match(missingCpus(16, 4, 'maxcpus=1 nr_cpus=4')[0] ?? '', /^4 of 16 CPUs .*nr_cpus=/);
});

test('CPUs are told apart by what they say themselves', () => {
  const cpuinfo =
    'processor\t: 0\napicid\t\t: 1\ninitial apicid\t: 1\n\nprocessor\t: 1\ninitial apicid\t: 12\n';
  assert.deepEqual([...runningApicIds(cpuinfo)], [1, 12]);
});

test('what a CPU stands in that this kernel has not started is needed; all, if that is not known', () => {
  const known = { cpu: 0, apicId: 0, memory: [{ physical: 0x1000, length: 0x2000 }] };
  const unknown = { cpu: 1, apicId: 8, memory: undefined };
  const everything = [{ start: 0, end: Number.POSITIVE_INFINITY }];
  assert.deepEqual(neededMemory([known, unknown], new Set([0, 8])), []);
  assert.deepEqual(neededMemory([known, unknown], new Set([8])), [{ start: 0x1000, end: 0x3000 }]);
  assert.deepEqual(neededMemory([known, unknown], new Set([0])), everything);
  assert.deepEqual(neededMemory(undefined, new Set([0])), everything);
});

test('memory is read in bytes', () => {
  const memory = readMemory('MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\n');
  assert.deepEqual(memory, { total: 1_024_000, available: 409_600, used: 614_400 });
});

test('mount points with blanks are found', () => {
  const line = '36 35 98:0 / /mnt/two\\040words rw shared:1 - ext4 /dev/vda rw';
  assert.ok(mountedPaths(`${line}\n`).has('/mnt/two words'));
});

test('systemd is told to settle, once', () => {
  writeSettleUnit(directory);
  writeSettleUnit(directory);
  const wanted = join(directory, 'multi-user.target.wants/otherworld-settle.service');
  assert.match(readFileSync(wanted, 'utf8'), /^After=multi-user\.target otherworld-sandbox\.service$/m);
  removeDropIn('nobody.service', directory);
  assert.ok(!existsSync(join(directory, 'nobody.service.d')));
});
