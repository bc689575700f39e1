// Boots one bare guest with 300 processes, dumps its memory while it runs, and compares what `otherworld
// inspect` reads out of the dump with the guest's own /proc, read before and after: what did not change in
// between must be the same.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import * as z from 'zod';
import { listFiles } from '../../src/inspect/files.ts';
import { allMapsInspection, mapsInspection } from '../../src/inspect/maps.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { formatLogRecord, readLog } from '../../src/linux/printk.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { readProfile } from '../../src/vmcore/profile.ts';
import { bootTestGuest, release, scratchDirectory, type TestGuest } from './harness.ts';
import { installNodeProgram } from './node-programs.ts';

/**
 * One line per fact of each process, by three programs, since starting some for each process takes minutes.
 */
const SNAPSHOT = `
grep -s '' /proc/[0-9]*/maps /proc/[0-9]*/comm
find /proc/[0-9]*/fd -type l -printf '%p:%l\\n' 2>/dev/null
find /proc/[0-9]*/task -mindepth 1 -maxdepth 1 -printf '%p:\\n' 2>/dev/null
true`;

type Facts = ReadonlyMap<number, { maps: string; files: string; comm: string; threads: number }>;

function parseSnapshot(text: string): Facts {
  const facts = new Map<number, { maps: string; files: string; comm: string; threads: number }>();
  for (const line of text.split('\n')) {
    const [, pid, key, id, rest = ''] = /^\/proc\/(\d+)\/(\w+)(?:\/(\d+))?:(.*)$/.exec(line) ?? [];
    if (pid === undefined) continue;
    const process = facts.get(Number(pid)) ?? { maps: '', files: '', comm: '', threads: 0 };
    if (key === 'maps') process.maps += `${rest}\n`;
    if (key === 'fd') process.files += `${id} ${rest}\n`;
    if (key === 'comm') process.comm = rest;
    if (key === 'task') process.threads++;
    facts.set(Number(pid), process);
  }
  return facts;
}

/** What both snapshots say, for processes that are in both and look the same in one respect. */
function stable<K extends keyof (Facts extends ReadonlyMap<number, infer F> ? F : never)>(
  earlier: Facts,
  later: Facts,
  key: K,
): [number, NonNullable<ReturnType<Facts['get']>>[K]][] {
  return [...earlier].flatMap(([pid, facts]) =>
    later.get(pid)?.[key] === facts[key] ? [[pid, facts[key]]] : [],
  );
}

suite(`inspecting a living guest with ${release}`, () => {
  let guest: TestGuest;
  const scratch = scratchDirectory();
  const dump = join(scratch.path, 'dump');
  let kernel: Kernel;
  let earlier: Facts;
  let later: Facts;
  let log: string;

  before(async () => {
    guest = await bootTestGuest('inspect', { arm: false });
    await guest.background('for i in $(seq 300); do sleep 100000 & done; wait');
    await guest.until('[ $(pgrep -c sleep) -ge 300 ]', 60);
    await guest.sh('echo "a line for the test" > /dev/kmsg');
    earlier = parseSnapshot(await guest.sh(SNAPSHOT, 120));
    log = await guest.sh('dmesg');
    await guest.vmcore(dump);
    later = parseSnapshot(await guest.sh(SNAPSHOT, 120));
    kernel = openKernel(dump);
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  test('finds every process, under its name and with its threads', () => {
    const rows = new Map(listProcesses(kernel).rows.map((row) => [row.pid, row]));
    for (const [pid, comm] of stable(earlier, later, 'comm')) {
      // /proc appends a kernel worker's queue to its name.
      if (rows.get(pid)?.isKernelThread === true)
        assert.ok(comm.startsWith(rows.get(pid)?.comm ?? '?'), comm);
      else assert.equal(rows.get(pid)?.comm, comm);
    }
    for (const [pid, threads] of stable(earlier, later, 'threads'))
      assert.equal(rows.get(pid)?.threads, threads);
    assert.ok([...rows.values()].filter(({ comm }) => comm === 'sleep').length >= 300);
  });

  test('gives the memory maps of each as its /proc does', () => {
    const maps = stable(earlier, later, 'maps').filter(([, text]) => text !== '');
    assert.ok(maps.length > 300);
    for (const [pid, text] of maps)
      assert.equal(`${mapsInspection(kernel, pid).text()}\n`, text, `PID ${pid}`);
  });

  test('gives the open files of each as its /proc does', () => {
    const byNumber = (text: string): string[] =>
      text
        .split('\n')
        .filter((line) => line !== '')
        .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
    for (const [pid, text] of stable(earlier, later, 'files')) {
      const found = listFiles(kernel, pid).map(({ fd, name }) => `${fd} ${name}`);
      assert.deepEqual(found, byNumber(text), `PID ${pid}`);
    }
  });

  test('gives the log as dmesg does', () => {
    const lines = readLog(kernel).records.map(formatLogRecord).join('\n').split('\n');
    assert.equal(lines.slice(0, log.split('\n').length).join('\n'), log);
    assert.match(log, /a line for the test/);
  });

  test('lists all processes with their maps', () => {
    assert.ok(allMapsInspection(kernel).text().split('\n').length > 300 * 15);
  });

  test('gives the same of the running kernel, in the guest itself', async () => {
    const inspect = async (...args: readonly string[]) => {
      const { status, stdout, stderr } = await guest.exec(['otherworld', 'inspect', '/proc/kcore', ...args]);
      // A process that ends while the list of them is read is marked in it.
      assert.ok(status === 0 || (status === 3 && args[0] === 'ps'), `${args.join(' ')}: ${stderr}`);
      return stdout.replace(/\n$/, '');
    };
    const sleeper = Number(await guest.sh('pgrep -n -x sleep'));
    assert.match(await inspect(), /^panic +none: the kernel is alive$/m);
    assert.equal(`${await inspect('maps', String(sleeper))}`, await guest.sh(`cat /proc/${sleeper}/maps`));
    assert.match(await inspect('log'), /a line for the test/);
    const stack = await inspect('stack', String(sleeper));
    assert.match(stack, /hrtimer_nanosleep/);
    const rows = z
      .object({ processes: z.array(z.object({ pid: z.number(), comm: z.string() })) })
      .parse(JSON.parse(await inspect('ps', '--json'))).processes;
    const names = new Map(rows.map(({ pid, comm }) => [pid, comm]));
    for (const [pid, comm] of stable(earlier, later, 'comm')) {
      // A process that has ended since is in neither.
      if (names.has(pid)) assert.ok(comm.startsWith(names.get(pid) ?? '?'), comm);
    }
    assert.ok(rows.filter(({ comm }) => comm === 'sleep').length >= 300);
  });

  test('takes no process out of it, which changes while it is read', async () => {
    const { status, stderr } = await guest.exec([
      'otherworld',
      'extract',
      '/proc/kcore',
      '--pid',
      '1',
      '--out',
      '/root/out',
    ]);
    assert.equal(status, 2);
    assert.match(stderr, /is the running kernel, and its processes change while they are read/);
  });

  test('does the same with a profile that the guest took of itself', async () => {
    await guest.sh(`${await installNodeProgram(guest, 'profile')} /root/profile`);
    await guest.copyOut('/root/profile', join(scratch.path, 'profile'));
    const profile = readProfile(join(scratch.path, 'profile'));
    const other = openKernel(dump, profile);
    assert.deepEqual(listProcesses(other), listProcesses(kernel));
    for (const name of ['init_task', 'runqueues', 'prb', '_end'])
      assert.equal(other.symbol(name), kernel.symbol(name));
    assert.ok(profile.btf.length > 1_000_000);
    assert.match(profile.vmcoreinfo, /^KERNELOFFSET=/m);
  });
});
