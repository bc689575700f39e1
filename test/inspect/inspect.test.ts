import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, mock } from 'node:test';
import { Command } from 'commander';
import { registerInspect } from '../../src/cli/inspect.ts';
import { listFiles } from '../../src/inspect/files.ts';
import { logInspection } from '../../src/inspect/log.ts';
import { mapsInspection } from '../../src/inspect/maps.ts';
import { structInspection } from '../../src/inspect/struct.ts';
import { symbolInspection } from '../../src/inspect/symbol.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { threadsInspection } from '../../src/inspect/threads.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import {
  dumpBytes,
  dumpPath,
  openFixture,
  openPatched,
  patchedDump,
  releases,
  scratch,
  truthOf,
  withoutPage,
} from '../vmcore/fixtures.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const truth = truthOf(release);

  describe(`inspecting ${release} gives what the guest's own /proc gave`, () => {
    it('for its memory maps, character for character', () => {
      for (const { pid, maps } of truth.processes)
        assert.equal(mapsInspection(kernel, pid).text(), maps.join('\n'));
    });

    it('for its open files', () => {
      for (const { pid, files } of truth.processes) {
        const found = listFiles(kernel, pid);
        assert.deepEqual(
          found.map(({ fd, name }) => `${fd} ${name}`),
          files,
        );
      }
    });

    it('for its threads', () => {
      for (const { pid, threads } of truth.processes) {
        const report = threadsInspection(kernel, pid).json() as { threads: { tid: number; comm: string }[] };
        assert.deepEqual(
          report.threads.map(({ tid }) => tid).sort(),
          threads.map((line) => Number(line.split(' ')[0])).sort(),
        );
      }
    });

    it('for parents, states, sizes and names of its processes', () => {
      const rows = new Map(listProcesses(kernel).rows.map((row) => [row.pid, row]));
      for (const { pid, stat } of truth.processes) {
        const [, comm = '', rest = ''] = /^\d+ \((.*)\) (.*)$/.exec(stat) ?? [];
        const [state, ppid, , , , , , , , , , , , , , , , threads, , , , rss] = rest.split(' ');
        const row = rows.get(pid);
        assert.equal(row?.ppid, Number(ppid), `parent of ${pid}`);
        assert.equal(row?.threads, Number(threads), `threads of ${pid}`);
        // The guest read its own /proc a second before the dump: a kernel worker may have gone to sleep
        // since.
        if (row?.rssKib !== undefined) assert.equal(row.state, state, `state of ${pid}`);
        // A worker's /proc name has its queue's name appended.
        assert.ok(comm.startsWith(row?.comm ?? '?'), `name of ${pid}`);
        // /proc/PID/stat leaves out what each CPU has not yet added to its three counters (up to 32 pages on
        // each).
        const difference = Math.abs((row?.rssKib ?? 0) - Number(rss) * 4);
        assert.ok(
          difference <= 3 * 2 * 32 * 4,
          `rss of ${pid}: ${row?.rssKib} KiB, in /proc ${Number(rss) * 4}`,
        );
      }
    });
  });

  describe(`inspecting ${release}`, () => {
    it('shows the system call and the registers of a thread that sleeps in pause(2)', () => {
      const report = threadsInspection(kernel, truth.program.pid).json() as {
        threads: { comm: string; systemCall: number; userIp: string; state: string }[];
      };
      assert.deepEqual(
        report.threads.map(({ comm }) => comm),
        ['guest-program', 'first-thread', 'second-thread'],
      );
      for (const { systemCall, userIp, state } of report.threads) {
        assert.equal(systemCall, 34);
        assert.match(userIp, /^0x4[0-9a-f]{5}$/);
        assert.equal(state, 'S');
      }
    });

    it('shows the scheduling policy of a thread by its name, or by its number', () => {
      const policies = (of: Kernel, pid: number) =>
        (threadsInspection(of, pid).json() as { threads: { policy: string }[] }).threads.map(
          ({ policy }) => policy,
        );
      assert.deepEqual(policies(kernel, truth.program.pid), ['other', 'other', 'other']);
      // A CPU's stopper thread has it in every kernel (kernel/sched/stop_task.c).
      const stopper = listProcesses(kernel).rows.find(({ comm }) => comm === 'migration/0');
      assert.deepEqual(policies(kernel, stopper?.pid ?? -1), ['fifo']);

      const policyNames = ['other', 'fifo', 'rr', 'batch', '4', 'idle', 'deadline', 'ext'];
      const at = kernel.layouts.member('task_struct', 'policy')?.offsetBytes ?? 0;
      const task = findTaskByPid(kernel, truth.program.pid) ?? 0n;
      const physical = kernel.memory.translate(task + BigInt(at));
      for (const [policy, name] of policyNames.entries()) {
        const patched = openPatched(release, [{ physical, bytes: Uint8Array.of(policy, 0, 0, 0) }]);
        assert.deepEqual(policies(patched, truth.program.pid), [name, 'other', 'other']);
        const [header, leader] = threadsInspection(patched, truth.program.pid).text().split('\n');
        const column = header?.indexOf('POLICY') ?? -1;
        assert.match(leader?.slice(column) ?? '', new RegExp(`^${name} `));
        patched.close();
      }
    });

    it('shows the log from its first line to the last', () => {
      const lines = logInspection(kernel).text().split('\n');
      assert.match(lines[0] ?? '', /^\[ {4}0\.000000\] Linux version 6\./);
      assert.match(lines.slice(-10).join('\n'), /^\[ *\d+\.\d{6}\] otherworld: marker line$/m);
    });

    it('shows structures and their values', () => {
      assert.match(
        structInspection(kernel, 'list_head').text(),
        /struct list_head \*next; +\/\* {5}0 {5}8 \*\//,
      );
      const layout = structInspection(kernel, 'task_struct').json() as {
        size: number;
        members: { name: string; offset: number }[];
      };
      const comm = layout.members.find(({ name }) => name === 'comm');
      assert.equal(layout.size, kernel.sizeOf('task_struct'));
      assert.equal(comm?.offset, kernel.layouts.member('task_struct', 'comm')?.offsetBytes);
      const values = structInspection(kernel, 'task_struct', 'init_task').json() as {
        value: Record<string, unknown>;
      };
      assert.equal(values.value.comm, 'swapper/0');
      assert.equal(values.value.pid, 0);
      assert.throws(() => structInspection(kernel, 'nothing'), /kernel .* has no struct or union nothing$/);
      assert.throws(() => structInspection(kernel, 'Task_Struct'), /; there is .*task_struct/);
      assert.throws(() => structInspection(kernel, 'list_head', 'nowhere'), /neither an address/);
    });

    it('marks what it does not show of an array, and what the dump does not have of a structure', () => {
      const task = taskAt(kernel, findTaskByPid(kernel, truth.program.pid) ?? 0n);
      const mask = structInspection(kernel, 'cpumask', '__cpu_online_mask');
      assert.match(mask.text(), /\.bits = \{ 3, 0, .*, 0, \/\* and 64 more \*\/ \}/);
      const { value } = JSON.parse(JSON.stringify(mask.json())) as {
        value: { bits: { elements: unknown[]; more: number } };
      };
      assert.deepEqual([value.bits.elements.length, value.bits.more], [64, 64]);
      assert.deepEqual(mask.problems, []);

      const last = task.address + BigInt(kernel.layouts.member('task_struct', 'thread')?.offsetBytes ?? 0);
      const partly = withoutPage(release, kernel.memory.translate(last));
      const found = structInspection(partly, 'task_struct', `0x${task.address.toString(16)}`);
      const isShown = kernel.memory.translate(last) - kernel.memory.translate(task.address) > 4096;
      if (isShown) assert.match(found.text(), new RegExp(`\\.tgid = ${truth.program.pid},`));
      assert.match(found.text(), /\/\* unreadable: address 0x[0-9a-f]+ is not in the dump/);
      assert.ok((found.problems ?? []).length > 0);
      assert.throws(() => structInspection(kernel, 'list_head', '0x1000'), /is not a kernel address/);
    });

    it('shows symbols both ways', () => {
      const address = kernel.symbol('init_task');
      assert.equal(symbolInspection(kernel, 'init_task').text(), `0x${address.toString(16)} init_task`);
      assert.equal(
        symbolInspection(kernel, `0x${(address + 16n).toString(16)}`).text(),
        `0x${(address + 16n).toString(16)} init_task+0x10`,
      );
      assert.throws(() => symbolInspection(kernel, 'no_such_symbol'), /has no symbol no_such_symbol/);
      assert.throws(
        () => symbolInspection(kernel, '0x1'),
        /0x1 is neither in kernel .* nor in a module of it/,
      );
    });

    it('says which process does not exist, and which has nothing to show', () => {
      assert.throws(() => mapsInspection(kernel, 4000), /has no process 4000/);
      const thread = mapsInspection(kernel, 2);
      assert.equal(thread.text(), '');
      assert.match(thread.remarks?.[0] ?? '', /process 2 \(kthreadd\) has no memory/);
    });
  });
}

describe('the command otherworld inspect', () => {
  const main = join(import.meta.dirname, '../../src/cli/main.ts');
  const spawn = (...args: string[]) =>
    spawnSync(process.execPath, [main, 'inspect', dumpPath('debian13'), ...args], { encoding: 'utf8' });

  /** The same of any dump in this process, which is faster: what it prints, and the error it ends with. */
  async function inspect(dump: string, ...args: string[]): Promise<{ stdout: string; error: unknown }> {
    const program = new Command().exitOverride();
    registerInspect(program);
    const write = mock.method(process.stdout, 'write', () => true);
    const complain = mock.method(process.stderr, 'write', () => true);
    const printed = (): string => write.mock.calls.map(({ arguments: [text] }) => String(text)).join('');
    try {
      await program.parseAsync(['inspect', dump, ...args], { from: 'user' });
      return { stdout: printed(), error: undefined };
    } catch (error) {
      return { stdout: printed(), error };
    } finally {
      write.mock.restore();
      complain.mock.restore();
    }
  }

  async function run(...args: string[]): Promise<string> {
    const { stdout, error } = await inspect(dumpPath('debian13'), ...args);
    if (error !== undefined) throw error;
    return stdout;
  }

  it('prints text for people and JSON for machines', async () => {
    assert.match(spawn().stdout, /^kernel +6\.12/m);
    for (const view of [
      ['ps'],
      ['maps'],
      ['maps', '1'],
      ['files', '1'],
      ['threads', '1'],
      ['log'],
      ['struct', 'list_head'],
      ['symbol', 'init_task'],
    ]) {
      assert.ok((await run(...view)).length > 20, view.join(' '));
      assert.equal(typeof JSON.parse(await run(...view, '--json')), 'object', view.join(' '));
    }
  });

  it('ends with a message and a status, without a stack trace', async () => {
    for (const args of [['nothing'], ['maps', 'x'], ['symbol', 'nope'], ['ps', 'more'], ['struct']]) {
      await assert.rejects(run(...args), /\S/, args.join(' '));
    }
    const { status, stderr, stdout } = spawn('maps', '99999');
    assert.equal(status, 1);
    assert.equal(stdout, '');
    assert.match(stderr, /^otherworld: .* has no process 99999; .*\n$/);
    await assert.rejects(run('maps', 'x'), { message: /^"x" is no PID: / });
  });

  it('ends with a status of its own, and says so in JSON, where something is missing', async () => {
    const kernel = openFixture('debian13');
    const ring = kernel.memory.pointer(kernel.symbol('prb'));
    const infos = kernel.layouts.member('printk_ringbuffer', 'desc_ring.infos')?.offsetBytes ?? 0;
    const physical = kernel.memory.translate(kernel.memory.pointer(ring + BigInt(infos)));
    const path = patchedDump('debian13', [{ physical: physical + 8192, bytes: Buffer.alloc(4096) }]);
    const text = spawnSync(process.execPath, [main, 'inspect', path, 'log'], { encoding: 'utf8' });
    assert.equal(text.status, 3);
    assert.match(text.stdout, /^--- \d+ records are missing from \d+ on: the first is damaged/m);
    assert.match(
      text.stderr,
      /: the log is incomplete: \d+ of its records are missing .*\n.*is incomplete\n$/,
    );
    const json = await inspect(path, 'log', '--json');
    assert.equal((json.error as { exitStatus?: number }).exitStatus, 3);
    const { records, problems } = JSON.parse(json.stdout) as { records: object[]; problems: string[] };
    assert.equal(problems.length, 1);
    assert.ok(records.some((record) => 'missing' in record));
  });

  it('shows bytes of the log that are not UTF-8 in JSON that every reader takes', async () => {
    const whole = dumpBytes('debian13');
    const at = whole.indexOf('otherworld: marker line');
    assert.ok(at > 0);
    whole[at] = 0xe9;
    const path = scratch('log-bytes');
    writeFileSync(path, whole);
    const { stdout } = await inspect(path, 'log', '--json');
    const { records } = JSON.parse(stdout) as { records: { text?: string }[] };
    assert.ok(records.some(({ text }) => text === '\\xe9therworld: marker line'));
    assert.ok(records.every(({ text }) => text?.isWellFormed() !== false));
  });

  it('ends quietly when its reader has read enough', () => {
    const script = `"${process.execPath}" "${main}" inspect "${dumpPath('debian13')}" maps | head -n 1; echo $PIPESTATUS`;
    const { stdout, stderr } = spawnSync('bash', ['-c', script], { encoding: 'utf8' });
    assert.equal(stderr, '');
    assert.match(stdout, /^1 \w+\n(0|141)\n$/);
  });
});
