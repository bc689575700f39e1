// Boots one guest without a crash kernel, and compares what `otherworld check` says of its processes, by the
// living kernel's own memory, with a capture of a dump of the same guest.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import * as z from 'zod';
import { captureProcesses } from '../../src/capture/index.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { bootTestGuest, release, scratchDirectory, type TestGuest } from './harness.ts';

const checkSchema = z.object({
  processes: z.array(
    z.object({
      pid: z.number(),
      outcome: z.string(),
      reasons: z.array(z.string()),
      moments: z.array(z.string()),
      causes: z.array(z.object({ text: z.string(), advice: z.string().optional() })),
    }),
  ),
  warnings: z.array(z.string()),
});

/** Things that no process has again, each for a reason of its own. */
const HOLDER = `
import os, socket, time
disk = os.open('/dev/vda', os.O_RDONLY)
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
open('/run/holds', 'w').close()
time.sleep(1e6)`;

suite(`checking the living kernel of ${release}`, () => {
  let guest: TestGuest;
  const scratch = scratchDirectory();
  let idle: number;
  let holder: number;

  before(async () => {
    guest = await bootTestGuest('check', { arm: false });
    idle = await guest.background('exec sleep 1000000');
    holder = await guest.background(`exec python3 -c "${HOLDER}"`);
    await guest.until('test -e /run/holds', 60);
    await guest.sh('systemd-run --quiet --unit=checked sleep 1000000');
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  async function check(...args: readonly string[]) {
    const { status, stdout, stderr } = await guest.exec(['otherworld', 'check', ...args, '--json']);
    assert.ok(status === 0 || status === 3 || status === 4, `status ${status}: ${stderr}`);
    return { status, ...checkSchema.parse(JSON.parse(stdout)) };
  }

  test('says of a process that waits, and of a unit, that they would come back', async () => {
    const one = await check('--pid', String(idle));
    assert.deepEqual([one.status, one.processes.map(({ outcome }) => outcome)], [0, ['comes back']]);
    assert.match(one.warnings.join('\n'), /this system is not armed/);
    const unit = await check('checked');
    assert.deepEqual([unit.status, unit.processes.map(({ outcome }) => outcome)], [0, ['comes back']]);
  });

  test('names every reason at once that a capture of a dump has, each with what to do about it', async () => {
    const { status, processes } = await check('--pid', String(holder));
    await guest.vmcore(join(scratch.path, 'vmcore'));
    const kernel = openKernel(join(scratch.path, 'vmcore'));
    const { refused } = captureProcesses(kernel, { roots: [holder], includeDescendants: true });
    kernel.close();
    assert.equal(status, 3);
    const [found] = processes;
    assert.deepEqual([found?.outcome, found?.moments], ['refused', []]);
    assert.deepEqual(found?.reasons.toSorted(), refused.flatMap(({ reasons }) => reasons).toSorted());
    assert.ok((found?.reasons.length ?? 0) >= 2, found?.reasons.join('\n'));
    for (const { text, advice } of found?.causes ?? []) assert.ok(advice !== undefined, text);
  });

  test('finds every process of the system as a capture of a dump does', async () => {
    const all = await check('--all');
    await guest.vmcore(join(scratch.path, 'vmcore'));
    const kernel = openKernel(join(scratch.path, 'vmcore'));
    const roots = all.processes.map(({ pid }) => pid);
    const { refused } = captureProcesses(kernel, { roots, includeDescendants: false });
    kernel.close();
    const byPid = new Map(refused.map(({ pid, reasons }) => [pid, reasons.toSorted()]));
    assert.ok(all.processes.length > 10);
    for (const { pid, outcome, reasons } of all.processes) {
      const expected = byPid.get(pid) ?? [];
      if (outcome === 'depends' || expected.some((reason) => /on CPU|on a CPU|no such process/.test(reason)))
        continue;
      assert.deepEqual(reasons.toSorted(), expected, `process ${pid}`);
    }
  });

  test('says of a process that computes that it depends on the moment', async () => {
    await guest.sh('sysctl -qw kernel.sched_rt_runtime_us=-1');
    const busy = await guest.background('exec taskset -c 1 chrt -f 50 sh -c "while :; do :; done"');
    await guest.until(
      `grep -q '^SigQ' /proc/${busy}/status && [ "$(chrt -p ${busy} | grep -c FIFO)" = 1 ]`,
      60,
    );
    const { status, processes } = await check('--pid', String(busy));
    await guest.kill([busy]);
    const [found] = processes;
    assert.deepEqual([status, found?.outcome, found?.reasons], [4, 'depends', []]);
    assert.match(found?.moments.join('\n') ?? '', /^thread \d+ is on CPU 1: its registers are there/m);
  });

  test('says what it cannot look at', async () => {
    const cases: readonly (readonly [args: readonly string[], status: number, says: RegExp])[] = [
      [['nothing-of-the-kind'], 1, /there is no unit nothing-of-the-kind\.service/],
      [['--pid', '4000000'], 1, /there is no process 4000000/],
      [['--pid', '2'], 1, /process 2 \(kthreadd\) is a kernel thread/],
      [[], 1, /nothing is protected/],
    ];
    for (const [args, status, says] of cases) {
      const found = await guest.exec(['otherworld', 'check', ...args]);
      assert.equal(found.status, status, args.join(' '));
      assert.match(found.stderr, says);
    }
  });

  test('is what protect says in brief, and looks at all rules without being told what', async () => {
    const said = await guest.sh(`otherworld protect --pid ${holder} --pid ${idle}`);
    assert.match(
      said,
      new RegExp(`^ {2}python3 \\(${holder}\\) would not come back: .* \\(and \\d+ more\\)$`, 'm'),
    );
    assert.match(said, /^ {2}otherworld check tells every cause/m);
    assert.doesNotMatch(said, /sleep \(\d+\) would/);
    const { status, processes } = await check();
    assert.equal(status, 3);
    assert.deepEqual(
      processes.map(({ pid, outcome }) => [pid, outcome]).toSorted(),
      [
        [holder, 'refused'],
        [idle, 'comes back'],
      ].toSorted(),
    );
    const text = await guest.exec(['otherworld', 'check']);
    assert.match(text.stdout, /^1 of 2 processes would come back if the kernel died now$/m);
    assert.match(text.stdout, /^What to do$/m);
  });
});
