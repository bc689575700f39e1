import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cpioArchive } from '../../src/arm/cpio.ts';
import { TOOLS, toolFiles } from '../../src/arm/tools.ts';

const SCRIPTS = join(import.meta.dirname, '../../src/arm/initramfs');
const directory = mkdtempSync(join(tmpdir(), 'otherworld-initramfs-'));
after(() => rmSync(directory, { recursive: true }));

test('the script that takes over runs after every other one of its stage', () => {
  const stage = join(directory, 'init-bottom');
  mkdirSync(stage);
  for (const name of ['udev', 'plymouth', 'zzz-last', 'ORDER']) writeFileSync(join(stage, name), '');
  const own = join(stage, 'zz-otherworld');
  copyFileSync(join(SCRIPTS, 'init-bottom.sh'), own);
  chmodSync(own, 0o755);
  const prerequisites = execFileSync(own, ['prereqs'], { encoding: 'utf8' }).trim().split('\n');
  assert.deepEqual(prerequisites, ['plymouth', 'udev', 'zzz-last']);
});

test('the programs of the crash initramfs are whole: they run with nothing but what lies beside them', () => {
  execFileSync('cpio', ['-i', '--quiet'], { cwd: directory, input: Buffer.concat(cpioArchive(toolFiles())) });
  const own = join(directory, 'otherworld');
  for (const [name] of TOOLS) {
    const loader = join(own, 'lib/ld-linux-x86-64.so.2');
    const args = ['--library-path', join(own, 'lib'), join(own, 'bin', name), '--version'];
    const { stdout, status } = spawnSync(loader, args, { encoding: 'utf8', env: {} });
    assert.equal(status, 0, name);
    assert.match(stdout, new RegExp(`${name}.*(util-linux|coreutils)`), name);
  }
});

test('the CPUs that the crash kernel left alone are started by a setting of /init', () => {
  const root = join(directory, 'cpus');
  const states = { cpu1: '0\n', cpu2: '1  \n', cpu3: '0\n' };
  for (const [cpu, state] of Object.entries(states)) {
    mkdirSync(join(root, cpu), { recursive: true });
    writeFileSync(join(root, cpu, 'online'), state);
  }
  // The CPU that boots has no such file, and cpufreq is none.
  for (const other of ['cpu0', 'cpufreq']) mkdirSync(join(root, other));
  const file = toolFiles().find(({ path }) => path === 'conf/conf.d/otherworld');
  const script = Buffer.from(file?.data ?? assert.fail()).toString();
  const run = (cpus: string): void => {
    const input = script.replaceAll('/sys/devices/system/cpu', cpus);
    const { status, stderr } = spawnSync('sh', ['-eu'], { input, encoding: 'utf8' });
    assert.deepEqual([status, stderr], [0, '']);
  };
  run(root);
  run(join(directory, 'only one'));
  const now = Object.keys(states).map((cpu) => readFileSync(join(root, cpu, 'online'), 'utf8'));
  // Who runs is left alone.
  assert.deepEqual(now, ['1\n', states.cpu2, '1\n']);
});

test('the scripts of the crash initramfs name every program by a path of our own', () => {
  const tools = TOOLS.map(([name]) => name).join('|');
  for (const script of ['init-bottom.sh', 'enter.sh']) {
    const text = readFileSync(join(SCRIPTS, script), 'utf8').replaceAll(/^\s*#.*$/gm, '');
    const bare = new RegExp(`(?<!tool |bin/|X-|[.])\\b(?:${tools}|losetup|mkdir|ln)\\b`);
    assert.doesNotMatch(text, bare, script);
  }
});
