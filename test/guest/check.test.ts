// Boots one guest without a crash kernel, and compares what `otherworld check` says of its processes, by the
// living kernel's own memory, with a capture of a dump of the same guest.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import * as z from 'zod';
import { captureProcesses } from '../../src/capture/index.ts';
import type { SandboxRequest } from '../../src/capture/sandboxes.ts';
import { serviceOf, templateOf } from '../../src/config/service-units.ts';
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

  /** The service of a cgroup, if its unit outlives a boot. */
  async function installedInGuest(): Promise<(path: string) => string | undefined> {
    const names = await guest.sh('ls -1 /etc/systemd/system /usr/lib/systemd/system');
    const installed = new Set(names.split('\n'));
    return (path) => {
      const unit = serviceOf(path);
      const isThere = unit !== undefined && (installed.has(unit) || installed.has(templateOf(unit)));
      return isThere ? unit : undefined;
    };
  }

  /** Why each of these would be refused, by a dump of the guest as it is now. */
  async function dumped(
    roots: readonly number[],
    services: SandboxRequest,
  ): Promise<ReadonlyMap<number, readonly string[]>> {
    const path = join(scratch.path, 'vmcore');
    await guest.vmcore(path);
    const kernel = openKernel(path);
    try {
      const { refused } = captureProcesses(kernel, { roots, includeDescendants: false, services });
      return new Map(refused.map(({ pid, reasons }) => [pid, reasons.toSorted()]));
    } finally {
      kernel.close();
    }
  }

  test('finds every process as a capture of a dump does, each reason with what to do about it', async () => {
    const pids = (await guest.sh('ls /proc'))
      .split('\n')
      .map(Number)
      .filter((pid) => pid > 1);
    const services: SandboxRequest = { sandboxes: 'restore', serviceOf: await installedInGuest() };
    const before_ = await dumped(pids, services);
    const { status, processes } = await check('--all');
    const after_ = await dumped(pids, services);
    assert.equal(status, 3);
    assert.ok(processes.length > 10);
    // What changes between the dumps can have changed before the check, or behind it.
    const stable = processes.filter(({ pid, outcome }) => {
      const reasons = before_.get(pid) ?? [];
      return outcome !== 'depends' && isDeepStrictEqual(reasons, after_.get(pid) ?? []);
    });
    assert.ok(stable.length > processes.length / 2, `${stable.length} of ${processes.length}`);
    for (const { pid, reasons, causes } of stable) {
      assert.deepEqual(reasons.toSorted(), before_.get(pid) ?? [], `process ${pid}`);
      for (const { text, advice } of causes) assert.ok(advice !== undefined, text);
    }
    const found = processes.find(({ pid }) => pid === holder);
    assert.deepEqual([found?.outcome, found?.moments], ['refused', []]);
    assert.ok((found?.reasons ?? []).length >= 2, JSON.stringify(found));
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

  test('is what protect and status say in brief, and looks at all rules without being told what', async () => {
    const said = await guest.sh(`otherworld protect --pid ${holder} --pid ${idle}`);
    const { stdout } = await guest.exec(['otherworld', 'status']);
    for (const text of [said, stdout]) {
      assert.match(
        text,
        new RegExp(`^ {2}python3 \\(${holder}\\) would not come back: .* \\(and \\d+ more\\)$`, 'm'),
      );
      assert.match(text, /^ {2}otherworld check tells every cause/m);
      assert.doesNotMatch(text, /sleep \(\d+\) would/);
    }
    const checked = await guest.exec(['otherworld', 'check']);
    assert.equal(checked.status, 3);
    assert.match(checked.stdout, /^1 of 2 processes would come back if the kernel died now$/m);
    assert.match(checked.stdout, new RegExp(`^ *${holder}  python3 +refused$`, 'm'));
    assert.match(checked.stdout, new RegExp(`^ *${idle}  sleep +comes back$`, 'm'));
    assert.match(checked.stdout, /^What to do$/m);
  });
});
