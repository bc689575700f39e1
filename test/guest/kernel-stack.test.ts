// Boots one bare guest in which processes sit in many system calls, most of them held up in the middle, dumps
// its memory while it runs, and compares the kernel stack of every task with what the guest's own /proc says
// of it; then what the stacks tell of those calls.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { callProgress } from '../../src/capture/calls/call-progress.ts';
import { progressTable } from '../../src/capture/calls/call-progress-table.ts';
import { atRest, calledWithLock } from '../../src/capture/calls/tcp-place.ts';
import { stackRow } from '../../src/inspect/stack.ts';
import { calledFunction, plainName } from '../../src/linux/arch/index.ts';
import { runningTasks } from '../../src/linux/current.ts';
import { findTaskByPid } from '../../src/linux/pid.ts';
import { kernelStack } from '../../src/linux/readers/kernel-stack.ts';
import { taskAt } from '../../src/linux/sched.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openKernel } from '../../src/vmcore/open.ts';
import { bootTestGuest, release, scratchDirectory, type TestGuest } from './harness.ts';
import { wholeText } from './whole-text.ts';

const SNAPSHOT = `for p in /proc/[0-9]*/task/[0-9]*; do
  echo "task \${p##*/}"; grep -h ctxt_switches $p/status; cat $p/stack
done 2>/dev/null; true`;

/** By TID, with how often it has left a CPU. Functions of the scheduler itself are left out there. */
function parseStacks(text: string): ReadonlyMap<number, readonly string[]> {
  const stacks = new Map<number, string[]>();
  let current: string[] = [];
  for (const line of text.split('\n')) {
    const [, tid] = /^task (\d+)$/.exec(line) ?? [];
    if (tid !== undefined) {
      current = [];
      stacks.set(Number(tid), current);
    } else if (line !== '') current.push(line.replace('[<0>] ', '').replace(/\/0x[0-9a-f]+/, ''));
  }
  return stacks;
}

suite(`kernel stacks of a living guest with ${release}`, () => {
  let guest: TestGuest;
  const scratch = scratchDirectory();
  const dump = join(scratch.path, 'dump');
  let kernel: Kernel;
  let earlier: ReadonlyMap<number, readonly string[]>;
  let later: ReadonlyMap<number, readonly string[]>;
  let calls: ReadonlyMap<string, number>;

  before(async () => {
    guest = await bootTestGuest('kernel-stack', { install: false });
    await guest.copyIn(join(import.meta.dirname, 'programs/in-calls.py'), '/root/in-calls.py');
    await guest.background('exec python3 /root/in-calls.py');
    const said = await guest.until(wholeText('/run/in-calls'), 120);
    calls = new Map(said.split('\n').map((line) => [line.split(' ')[0] ?? '', Number(line.split(' ')[1])]));
    earlier = parseStacks(await guest.sh(SNAPSHOT, 120));
    await guest.vmcore(dump);
    later = parseStacks(await guest.sh(SNAPSHOT, 120));
    kernel = openKernel(dump);
  });
  after(async () => {
    scratch.remove();
    await guest?.down();
  });

  const stackOf = (pid: number) => {
    const task = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
    return kernelStack(kernel, task, runningTasks(kernel).cpuOf.get(task.address));
  };

  test('are those of its /proc, frame for frame, of every task that did not move', () => {
    const { cpuOf } = runningTasks(kernel);
    const [start, end] = [kernel.symbol('__sched_text_start'), kernel.symbol('__sched_text_end')];
    let compared = 0;
    for (const [tid, lines] of earlier) {
      const address = findTaskByPid(kernel, tid);
      if (lines.length < 3 || lines.join() !== later.get(tid)?.join() || address === undefined) continue;
      const task = taskAt(kernel, address);
      const { frames } = kernelStack(kernel, task, cpuOf.get(address));
      const shown = stackRow(kernel, task, cpuOf.get(address)).frames;
      const own = shown.filter((_, i) => {
        const ip = frames[i]?.ip ?? 0n;
        return ip < start || ip >= end;
      });
      assert.deepEqual(own, lines.slice(2), `task ${tid} (${task.comm})`);
      compared++;
    }
    assert.ok(compared > 60, `${compared} stacks were the same before and after the dump`);
  });

  test('end at the user registers, in every process', () => {
    for (const [name, pid] of calls) {
      if (name.endsWith('always')) continue;
      const { end, why } = stackOf(pid);
      assert.equal(end, 'user', `${name}: ${why}`);
    }
  });

  test('tell that a call which is held up before its effect has not begun', () => {
    for (const [name, pid] of calls) {
      if (!/-(frozen|locked|unfilled)$/.test(name)) continue;
      const [call = ''] = name.split('-');
      const expected = /^(read|write)$/.test(call) ? 'position-kept' : 'not-begun';
      const stack = stackOf(pid);
      const said = stack.frames.map((frame) => `${frame.function}>${frame.calls}`).join(' ');
      assert.equal(callProgress(call, stack, []).kind, expected, `${name}: ${said}`);
    }
    for (const name of ['epoll_wait', 'accept4', 'wait4'])
      assert.equal(callProgress(name, stackOf(calls.get(name) ?? 0), []).kind, 'not-begun', name);
  });

  test('have the functions that the table names, calling each other as it says', () => {
    /** Functions that a function of the kernel calls, by their plain names. */
    const callees = (name: string): ReadonlySet<string> => {
      const found = new Set<string>();
      for (const suffix of ['', '.isra.0', '.constprop.0', '.part.0.constprop.0']) {
        const start = kernel.symbolMaybe(name + suffix);
        if (start === undefined) continue;
        const code = kernel.memory.read(start, 16384);
        for (let at = 5; at < code.length; at++) {
          const own = kernel.symbolAt(start + BigInt(at));
          if (plainName(own?.name ?? '') !== name) break;
          const called = calledFunction(kernel, start + BigInt(at));
          if (typeof called === 'object') found.add(called.name);
          else if (called !== undefined) found.add(called);
        }
      }
      return found;
    };
    for (const [body, called] of Object.entries(atRest)) {
      const calling = body.replace(/_locked$/, '');
      for (const name of ['lock_sock_nested', body, 'release_sock'])
        assert.ok(callees(calling).has(name), `${calling}>${name}`);
      const missing = [...called].filter((name) => !callees(body).has(name));
      assert.deepEqual(missing, [], body);
    }
    // Who waits for a lock gives the spinlock back in a function of its own, not as one that has taken it.
    assert.ok(callees('lock_sock_nested').has('__lock_sock'));
    const releasing = [...(calledWithLock.release_sock ?? [])];
    for (const name of releasing.filter((one) => one !== 'tcp_release_cb'))
      assert.ok(callees('release_sock').has(name), name);
    const isThere = (chain: string): boolean =>
      chain.split('>').every((name, i, all) => i === 0 || callees(all[i - 1] ?? '').has(name));
    for (const row of progressTable) {
      for (const kind of ['notBegun', 'positionKept', 'operations', 'lastName'] as const) {
        const chains = (row[kind] ?? '').split(/\s+/).filter((chain) => chain !== '');
        assert.ok(chains.length === 0 || chains.some(isThere), `${row.calls}: ${kind}`);
      }
    }
  });

  test('tell of a process on a CPU where in its call it was', async () => {
    const pid = calls.get('read-always') ?? 0;
    const found = await guest.dumpUntil(dump, (again) => {
      const task = taskAt(again, findTaskByPid(again, pid) ?? 0n);
      const cpu = runningTasks(again).cpuOf.get(task.address);
      const { frames, end } = kernelStack(again, task, cpu);
      const names = frames.map((frame) => frame.function);
      return cpu !== undefined && end === 'user' && names.includes('do_syscall_64') ? names : undefined;
    });
    assert.ok(found.includes('ksys_read'), found.join(' '));
  });
});
