import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stackInspection } from '../../../src/inspect/stack.ts';
import { taskPtRegs } from '../../../src/linux/arch/index.ts';
import { orcEntryStruct } from '../../../src/linux/arch/x86/orc.ts';
import { inactiveTaskFrameStruct } from '../../../src/linux/arch/x86/switch-to.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { kernelStack } from '../../../src/linux/readers/kernel-stack.ts';
import { type Task, taskAt } from '../../../src/linux/sched.ts';
import type { Kernel } from '../../../src/vmcore/kernel.ts';
import { openFixture, openPatched, releases, truthOf, withoutPage, word } from '../../vmcore/fixtures.ts';

for (const release of releases) {
  const kernel = openFixture(release);
  const truth = truthOf(release);
  const taskOf = (of: Kernel, pid: number): Task => taskAt(of, findTaskByPid(of, pid) ?? 0n);
  /** Functions that /proc leaves out. */
  const isInScheduler = (ip: bigint): boolean =>
    ip >= kernel.symbol('__sched_text_start') && ip < kernel.symbol('__sched_text_end');
  /** In pause(2): `__schedule`, `schedule`, `do_sys_pause` or its like, and the entry of the kernel. */
  const sleeper = taskOf(kernel, truth.program.pid);
  const physical = (address: bigint): number => kernel.memory.translate(address);
  const frames = kernelStack(kernel, sleeper, undefined).frames;
  const patched = (address: bigint, bytes: Uint8Array) => {
    const other = openPatched(release, [{ physical: physical(address), bytes }]);
    const stack = kernelStack(other, taskOf(other, truth.program.pid), undefined);
    other.close();
    return stack;
  };
  /** Where the ORC entry of an address is, by the kernel's own search. */
  const entryOf = (ip: bigint): bigint => {
    const ips = kernel.symbol('__start_orc_unwind_ip');
    let [low, high] = [0, Number(kernel.symbol('__stop_orc_unwind_ip') - ips) / 4];
    while (low < high) {
      const middle = (low + high) >> 1;
      const at = ips + BigInt(middle * 4);
      if (BigInt.asUintN(64, at + BigInt(kernel.memory.s32(at))) <= ip) low = middle + 1;
      else high = middle;
    }
    const { size } = kernel.bind(orcEntryStruct);
    return kernel.symbol('__start_orc_unwind') + BigInt((low - 1) * size);
  };

  describe(`the kernel stack of a task of ${release}`, () => {
    it('is what the guest’s own /proc said of it', () => {
      let compared = 0;
      for (const { pid, stacks } of truth.processes) {
        const { threads } = stackInspection(kernel, pid).json() as {
          threads: { tid: number; frames: string[]; problem?: string }[];
        };
        for (const { tid, frames: found, problem } of threads) {
          const lines = stacks
            .map((line) => line.split(' '))
            .filter(([of]) => Number(of) === tid)
            .map(([, line = '', ...rest]) => [line.replace(/\/0x[0-9a-f]+$/, ''), ...rest].join(' '));
          const { frames: own } = kernelStack(kernel, taskOf(kernel, tid), undefined);
          assert.deepEqual(
            found.filter((_, i) => !isInScheduler(own[i]?.ip ?? 0n)),
            lines,
            `thread ${tid}`,
          );
          assert.equal(problem, undefined);
          compared++;
        }
      }
      assert.ok(compared > 10, `${compared} stacks`);
    });

    it('says which function each of its functions has called', () => {
      const said = frames.map((frame) => `${frame.function}>${frame.calls}`);
      assert.deepEqual(said.slice(0, 2), ['__schedule>__switch_to_asm', 'schedule>__schedule']);
      assert.equal(said.at(-1), 'entry_SYSCALL_64_after_hwframe>do_syscall_64');
      for (const [i, frame] of frames.entries())
        if (i > 0 && frame.calls !== undefined && frame.calls !== 'indirect')
          assert.ok(kernel.symbolMaybe(frame.calls) !== undefined, frame.calls);
    });

    it('ends at the registers of user mode, or where a kernel thread began', () => {
      assert.equal(kernelStack(kernel, sleeper, undefined).end, 'user');
      assert.equal(kernelStack(kernel, taskOf(kernel, 2), undefined).end, 'kernel-thread');
    });

    it('is not guessed where the stack pointer is on no stack of the task', () => {
      const at = BigInt(kernel.layouts.member('task_struct', 'thread.sp')?.offsetBytes ?? 0);
      const other = openPatched(release, [
        { physical: physical(sleeper.address + at), bytes: word(sleeper.stack - 64n) },
      ]);
      const { end, frames: none } = kernelStack(other, taskOf(other, truth.program.pid), undefined);
      assert.equal(end, 'unknown');
      assert.deepEqual(none, []);
      other.close();
    });

    it('is not guessed behind a return address that is none of code', () => {
      const second = frames[1];
      const stack = patched((second?.sp ?? 0n) - 8n, word(0xffff_ffff_ffff_0000n));
      assert.equal(stack.end, 'unknown');
      assert.match(stack.why ?? '', /it is in no code of the kernel or of a module/);
      assert.equal(stack.frames.length, 2);
    });

    it('is not guessed where the kernel itself does not tell', () => {
      const entry = entryOf((frames[2]?.ip ?? 0n) - 1n);
      const { size } = kernel.bind(orcEntryStruct);
      const stack = patched(entry, Buffer.alloc(size));
      assert.equal(stack.end, 'unknown');
      assert.match(stack.why ?? '', /does not tell the stack at/);
      assert.equal(stack.frames.length, 3);
    });

    it('is not guessed where it goes backwards, off the stack, or to other user registers', () => {
      const entry = entryOf((frames[2]?.ip ?? 0n) - 1n);
      for (const [offset, why] of [
        [-64, /wrong way/],
        [0x7000, /is on no stack of it/],
      ] as const) {
        const bytes = kernel.memory.read(entry, 2);
        bytes.writeInt16LE(offset);
        const stack = patched(entry, bytes);
        assert.equal(stack.end, 'unknown');
        assert.match(stack.why ?? '', why);
      }
      const last = entryOf((frames.at(-1)?.ip ?? 0n) - 1n);
      const bytes = kernel.memory.read(last, 2);
      bytes.writeInt16LE(bytes.readInt16LE() - 8);
      assert.equal(patched(last, bytes).end, 'unknown');
    });

    it('tells that a task has not begun also behind the function that a CPU has come to it with', () => {
      const beginning = kernel.symbolMaybe('ret_from_fork_asm') ?? kernel.symbol('ret_from_fork');
      const stack = patched((frames[1]?.sp ?? 0n) - 8n, word(beginning));
      const [, next] = stack.frames;
      assert.match(next?.function ?? '', /^ret_from_fork(_asm)?$/);
      assert.deepEqual([stack.frames.length, next?.ip, stack.end], [2, beginning, 'kernel-thread']);
    });

    it('is not guessed where a page of it, or of the tables, is missing', () => {
      const registers = taskPtRegs(kernel, sleeper.stack).address;
      for (const address of [registers, entryOf((frames[1]?.ip ?? 0n) - 1n)]) {
        const other = withoutPage(release, physical(address));
        assert.equal(kernelStack(other, taskOf(other, truth.program.pid), undefined).end, 'unknown');
        other.close();
      }
    });

    it('starts, for a task on a CPU, at the registers of that CPU', () => {
      const inner = frames[0];
      const { bp } = kernel.bind(inactiveTaskFrameStruct).at(sleeper.thread.sp);
      const other = openPatched(release, []);
      const registers = { ip: inner?.ip ?? 0n, sp: inner?.sp ?? 0n, bp, cs: 0x10n };
      const notes = [{ pid: truth.program.pid, registers }];
      Object.defineProperty(other, 'cpuNotes', { value: notes });
      const stack = kernelStack(other, taskOf(other, truth.program.pid), 0);
      assert.deepEqual(
        stack.frames.slice(1).map(({ ip }) => ip),
        frames.slice(1).map(({ ip }) => ip),
      );
      assert.deepEqual([stack.frames[0]?.isInterrupted, stack.frames[0]?.calls], [true, undefined]);
      other.close();
    });
  });
}
