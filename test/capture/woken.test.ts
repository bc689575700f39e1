// Threads of the fixtures that sleep, as if they had been woken and had not run since: what becomes of their
// calls goes by their kernel stacks.
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { captureProcesses } from '../../src/capture/index.ts';
import { taskPtRegs } from '../../src/linux/arch/index.ts';
import { ptRegsStruct } from '../../src/linux/arch/x86/ptrace.ts';
import { epitem, epitems } from '../../src/linux/eventpoll.ts';
import { fdSlots } from '../../src/linux/fdtable.ts';
import { fileAt } from '../../src/linux/file.ts';
import { findTaskByPid, forEachThread } from '../../src/linux/pid.ts';
import { fileKind } from '../../src/linux/readers/file-kind.ts';
import { kernelStack } from '../../src/linux/readers/kernel-stack.ts';
import { taskAt } from '../../src/linux/sched.ts';
import { openFixture, openPatched, releases, truthOf, word } from '../vmcore/fixtures.ts';

const DISARMED = 0x4000_0000;

for (const release of releases) {
  const kernel = openFixture(release);
  const { pid } = truthOf(release).kinds;
  const leader = taskAt(kernel, findTaskByPid(kernel, pid) ?? 0n);
  const waiter = [...forEachThread(kernel, leader.address)]
    .map((address) => taskAt(kernel, address))
    .find((task) => kernelStack(kernel, task, undefined).frames.some((f) => f.function === 'do_epoll_wait'));
  const at = (address: bigint): number => kernel.memory.translate(address);
  const member = (path: string): bigint =>
    (waiter?.address ?? 0n) + BigInt(kernel.layouts.member('task_struct', path)?.offsetBytes ?? 0);

  const woken = { physical: at(member('__state')), bytes: Buffer.alloc(4) };
  const withoutStack = { physical: at(member('thread.sp')), bytes: word(0n) };
  const watching = fdSlots(kernel, leader.files).flatMap(({ fd, file: address }) => {
    if (address === 0n) return [];
    const file = fileAt(kernel, address);
    if (file === undefined || fileKind(kernel, file.f_op) !== 'eventpoll') return [];
    const watches = epitems(kernel, file.address, file.private_data);
    return watches.length === 0 ? [] : [{ fd, watches }];
  })[0];
  /** The call is on the epoll that has watches. */
  const di =
    taskPtRegs(kernel, waiter?.stack ?? 0n).address + BigInt(kernel.bind(ptRegsStruct).offsetOf('di'));
  const onIt = { physical: at(di), bytes: word(BigInt(watching?.fd ?? -1)) };
  const disarmed = (watching?.watches ?? []).map((watch) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(DISARMED);
    return { physical: at(watch.address + BigInt(kernel.bind(epitem).offsetOf('events'))), bytes };
  });

  const outcomeWith = (...patches: { physical: number; bytes: Buffer }[]) => {
    const patched = openPatched(release, [onIt, ...patches]);
    const { groups } = captureProcesses(patched, { roots: [pid], includeDescendants: true });
    const threads = groups.flatMap(({ processes }) => processes.flatMap((one) => one.threads));
    patched.close();
    return threads.find(({ tid }) => tid === waiter?.pid)?.syscall;
  };

  describe(`epoll_wait of ${release} that was woken`, () => {
    it('is made again, as its stack says that it has taken nothing', () => {
      const outcome = outcomeWith(woken, ...disarmed);
      assert.deepEqual([outcome?.syscall, outcome?.outcome], ['epoll_wait', 'restart']);
      assert.match(outcome?.reason ?? '', /has taken no events/);
    });

    it('is in doubt if a one-shot watch is disarmed and the stack does not tell', () => {
      assert.ok(disarmed.length > 0);
      const outcome = outcomeWith(woken, withoutStack, ...disarmed);
      assert.equal(outcome?.outcome, 'in-doubt');
      assert.match(outcome?.reason ?? '', /one-shot watch; its kernel stack does not tell: /);
    });

    it('is made again without its stack, if no watch has been disarmed', () => {
      assert.equal(outcomeWith(woken, withoutStack)?.outcome, 'restart');
    });
  });
}
