import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { XFEATURE } from '../../../src/arch/x86-64/xstate.ts';
import { TIF } from '../../../src/linux/sched.ts';
import { symbols } from '../../../src/stage-zero/code.ts';
import { releases } from '../../vmcore/fixtures.ts';
import {
  ALL,
  APIC_ID,
  COMPONENTS,
  Computing,
  ENTRY_TEXT,
  GS_BASE,
  KERNEL_TEXT,
  xsaveArea,
} from './computing.ts';

/** The end of a way out. */
const SWAPGS_IRETQ = [0x0f, 0x01, 0xf8, 0x48, 0xcf];

for (const release of releases) {
  suite(`a processor’s own registers, ${release},`, () => {
    test('are the computing task’s if everything agrees', () => {
      const { saved, why } = new Computing(release).live();
      assert.equal(why, '');
      assert.equal(saved?.apicId, APIC_ID);
      assert.deepEqual(saved.xsave, xsaveArea());
    });

    test('are not, if they belong to another by fpu_fpregs_owner_ctx', () => {
      const computing = new Computing(release);
      computing.owner(0xffff_8880_0000_1000n);
      const why = 'cannot be told: by fpu_fpregs_owner_ctx they belong to 0xffff888000001000';
      const { saved, why: said, processor } = computing.live();
      assert.deepEqual([saved, said, processor?.apicId], [undefined, why, APIC_ID]);
    });

    test('are not, if the task’s were on another CPU by last_cpu', () => {
      const computing = new Computing(release);
      computing.set('thread.fpu.last_cpu', 0);
      const { saved, why } = computing.live();
      assert.deepEqual([saved, why], [undefined, 'cannot be told: by last_cpu they were on CPU 0']);
    });

    test('are not, if the crash note of user mode has other registers than the task’s stack', () => {
      for (const name of ['r15', 'r8', 'ax', 'di', 'ip', 'sp']) {
        const computing = new Computing(release);
        computing.note({ [name]: 1n });
        const why = `cannot be told: the crash note has another ${name} than the task's stack`;
        assert.equal(computing.live().why, why);
        assert.equal(computing.live().saved, undefined);
      }
    });

    test('are, whatever the crash note of kernel mode has', () => {
      const computing = new Computing(release);
      computing.note({ cs: 0x10n, ip: KERNEL_TEXT, sp: 1n, r15: 1n });
      assert.equal(computing.live().saved?.apicId, APIC_ID);
    });

    test('are lost if the processor was not asked, did not answer, or there was no stage zero', () => {
      assert.match(new Computing(release).live(0).why, /^are lost: the processor could not be asked/);
      const early = new Computing(release);
      early.area.setState(symbols.STATE_PHASE, symbols.PHASE_STARTING);
      assert.match(early.live(0).why, /^are lost: stage zero ended early \(starting the others\)/);
      const without = new Computing(release);
      without.kernel.notes.splice(0);
      assert.deepEqual(without.live(), { processor: undefined, saved: undefined, why: 'are lost' });
    });

    test('are lost if they are damaged, and the reason says so', () => {
      const computing = new Computing(release);
      computing.area.bytes.writeUInt8(1, computing.area.slot(APIC_ID) + symbols.SLOT_XSAVE + 600);
      assert.match(computing.live().why, /^are lost: what the processor with APIC id 2 saved is damaged/);
    });

    test('are lost if the memory of stage zero is not in the dump, which ends nothing', () => {
      const computing = new Computing(release);
      const [note] = computing.kernel.notes;
      note?.description.writeBigUInt64LE(0x9_0000_0000n, 0);
      assert.match(computing.live().why, /^are lost: what stage zero saved cannot be read: .*0x900000000/);
    });

    test('are another kernel’s if stage zero was loaded in another boot', () => {
      const computing = new Computing(release);
      const variable = computing.kernel.physicalToVirtual(computing.kernel.tables.allocate());
      computing.kernel.symbols.set('sysctl_bootid', variable);
      computing.kernel.write(variable, computing.area.inputs.bootId);
      assert.equal(computing.live().saved?.apicId, APIC_ID);
      computing.kernel.write(variable + 15n, Buffer.from([0]));
      assert.match(computing.live().why, /^are lost: .*it was loaded in another boot/);
    });

    test('cannot be told if what names the processor is not in the dump', () => {
      const computing = new Computing(release);
      computing.kernel.symbols.delete('cpu_info');
      assert.match(computing.live().why, /^cannot be told: .*cpu_info/);
    });
  });

  suite(`registers of a task that was computing, ${release},`, () => {
    test('are those that stage zero saved: x87, SSE and every component', () => {
      const { fpu, registers, problems, notes } = new Computing(release).capture();
      assert.deepEqual([problems, notes], [[], []]);
      assert.equal(fpu.xstateBv, ALL);
      const fxsave = Buffer.from(fpu.fxsave);
      assert.deepEqual([fxsave.readUInt16LE(0), fxsave.readUInt32LE(24)], [0x27f, 0x9fc0]);
      assert.ok(fxsave.subarray(32, 160).every((byte) => byte === 0x87));
      assert.ok(fxsave.subarray(160, 416).every((byte) => byte === 0x5e));
      assert.deepEqual(
        fpu.components.map(({ number }) => number),
        [...COMPONENTS.keys()],
      );
      for (const { number, data } of fpu.components) {
        const { size } = COMPONENTS.get(number) ?? { size: 0 };
        const expected = Buffer.alloc(size, 0x10 + number);
        if (number === XFEATURE.pkru) expected.writeBigUInt64LE(0x5555_5551n);
        assert.deepEqual(Buffer.from(data), expected, `component ${number}`);
      }
      assert.equal(registers.gsBase, GS_BASE);
      assert.equal(registers.fsBase, 0x7f00_0000_0740n);
    });

    test('are zeros, and what a processor starts with, where a component was not in use', () => {
      const { fpu } = new Computing(release, xsaveArea(0n)).capture();
      assert.equal(fpu.xstateBv, 0n);
      for (const { number, data } of fpu.components)
        assert.ok(
          data.every((byte) => byte === 0),
          `component ${number}`,
        );
      const fxsave = Buffer.from(fpu.fxsave);
      assert.deepEqual([fxsave.readUInt16LE(0), fxsave.readUInt32LE(24)], [0x37f, 0x1f80]);
      assert.ok(fxsave.subarray(32, 416).every((byte) => byte === 0));
    });

    const NEEDS_LOAD = 1n << BigInt(TIF.needFpuLoad);
    const SAVING = 'was having its vector registers saved by the kernel';

    test('are the processor’s as long as they belong to the task there, whether or not memory has them too', () => {
      const computing = new Computing(release);
      computing.set('thread_info.flags', NEEDS_LOAD);
      computing.usesThemItself();
      const { fpu, problems } = computing.capture();
      assert.deepEqual([problems, fpu.xstateBv], [[], ALL]);
    });

    test('are those in memory once the kernel has taken them off the processor; GS base and key rights are not', () => {
      const computing = new Computing(release);
      computing.set('thread_info.flags', NEEDS_LOAD);
      computing.set('thread.pkru', 0x1111);
      computing.owner(0n);
      const { fpu, registers, problems } = computing.capture();
      assert.deepEqual([problems, registers.gsBase], [[], GS_BASE]);
      assert.equal(fpu.xstateBv, 1n << BigInt(XFEATURE.pkru));
      const keys = fpu.components.find(({ number }) => number === XFEATURE.pkru);
      assert.equal(Buffer.from(keys?.data ?? []).readUInt32LE(0), 0x5555_5551);
    });

    test('are not believed while the kernel moves them, where stage zero has not saved them', () => {
      const computing = new Computing(release);
      computing.kernel.notes.splice(0);
      computing.set('thread_info.flags', NEEDS_LOAD);
      computing.usesThemItself();
      assert.deepEqual(computing.capture().problems, [SAVING]);
      // It has moved them.
      computing.owner(0n);
      assert.deepEqual(computing.capture().problems, []);
    });

    test('are not believed on the way into and out of the kernel, nor between two tasks', () => {
      const problem = 'was on a CPU, on its way into or out of the kernel: nothing tells its registers';
      const entering = new Computing(release);
      entering.note({ cs: 0x10n, ip: ENTRY_TEXT + 16n });
      assert.deepEqual(entering.capture().problems, [
        `${problem} (the kernel does not show its entry stack)`,
      ]);
      entering.note({ ip: ENTRY_TEXT + 0x1000n });
      assert.deepEqual(entering.capture().problems, []);
      for (const name of ['fixup_bad_iret', '__switch_to']) {
        entering.kernel.text.set(ENTRY_TEXT + 0x1000n, name);
        assert.deepEqual(entering.capture().problems, [`${problem} (it was in ${name})`]);
      }
    });

    test('are not believed in what the entry code calls, unless C code has called it', () => {
      const computing = new Computing(release);
      computing.kernel.text.set(KERNEL_TEXT, 'retbleed_untrain_ret');
      computing.note({ cs: 0x10n, ip: KERNEL_TEXT, sp: 0xffff_fe00_0000_0f00n });
      assert.match(computing.capture().problems.join(), /\(the kernel does not show its entry stack\)$/);
      computing.note({ sp: computing.userRegisters - 0x100n });
      assert.deepEqual(computing.capture().problems, []);
    });

    test('are those with which it would have left the kernel, were its CPU at that', () => {
      const computing = new Computing(release);
      const before = computing.capture();
      computing.isAtEntry(SWAPGS_IRETQ);
      computing.kernel.set('pt_regs', computing.userRegisters, 'orig_ax', 39n);
      const { problems, registers, olderBases, fpu } = computing.capture();
      assert.deepEqual([problems, olderBases], [[], ['fs']]);
      // It is in no system call any more.
      assert.deepEqual(registers, before.registers);
      assert.deepEqual(fpu, before.fpu);
    });

    test('are not looked for where a program has its stack pointer point to', () => {
      const computing = new Computing(release);
      computing.panickedInNmi(KERNEL_TEXT, true);
      const sp = computing.kernel.cpuNotes[0]?.registers.sp ?? 0n;
      computing.isAtEntry([0x0f, 0x01, 0xf8, 0x48, 0x0f, 0x07]);
      computing.note({ sp });
      assert.match(computing.capture().problems.join(), /it takes another \w+ along than/);
    });

    test('are lost without stage zero there, unless a system call was just over', () => {
      const computing = new Computing(release);
      computing.kernel.notes.splice(0);
      computing.isAtEntry(SWAPGS_IRETQ);
      assert.deepEqual(computing.capture().problems, [
        'was computing on CPU 1: its vector registers are lost',
      ]);
      computing.kernel.set('pt_regs', computing.userRegisters, 'orig_ax', 39n);
      assert.match(computing.capture().problems.join(), /^(|.*floating-point modes of its own.*)$/);
    });

    test('have the GS base of before, where the processor had the user’s as its own at that moment', () => {
      const computing = new Computing(release);
      computing.area.save(APIC_ID, xsaveArea(), { xcr0: ALL, kernelGsBase: computing.kernelGsBase });
      computing.area.finish();
      computing.set('thread.gsbase', 0x2222n);
      computing.isAtEntry(SWAPGS_IRETQ, 3);
      const { registers, olderBases } = computing.capture();
      assert.deepEqual([registers.gsBase, olderBases], [0x2222n, ['fs', 'gs']]);
      // A processor without FSGSBASE has it all the same.
      computing.area.save(APIC_ID, xsaveArea(), { xcr0: ALL, kernelGsBase: GS_BASE });
      computing.area.finish();
      const other = computing.capture();
      assert.deepEqual([other.registers.gsBase, other.olderBases], [GS_BASE, ['fs']]);
    });

    test('are not those of its crash note if its CPU panicked in the entry code', () => {
      const computing = new Computing(release);
      computing.isAtEntry(SWAPGS_IRETQ);
      computing.kernel.variable('panic_cpu', 1n);
      assert.match(computing.capture().problems.join(), /nothing tells its registers \(the dump does not/);
    });

    test('are those that the NMI put down that panicked there, if its frames agree', () => {
      const computing = new Computing(release);
      const before = computing.capture();
      computing.isAtEntry(SWAPGS_IRETQ);
      computing.kernel.variable('panic_cpu', 1n);
      computing.panickedInNmi(ENTRY_TEXT, true);
      const { problems, registers } = computing.capture();
      assert.deepEqual([problems, registers], [[], before.registers]);
      computing.panickedInNmi(ENTRY_TEXT);
      assert.match(computing.capture().problems.join(), /nothing tells its registers \(the dump does not/);
    });

    test('are not believed if the exception that panicked came on the way into the kernel', () => {
      const computing = new Computing(release);
      computing.panickedInNmi(ENTRY_TEXT + 16n);
      assert.match(
        computing.capture().problems.join(),
        /^was on a CPU, on its way into or out of the kernel/,
      );
      computing.panickedInNmi(KERNEL_TEXT);
      assert.deepEqual(computing.capture().problems, []);
    });

    test('are not those of the handler that a nested NMI came to', () => {
      const computing = new Computing(release);
      computing.isAtEntry(SWAPGS_IRETQ);
      computing.kernel.variable('panic_cpu', 1n);
      computing.panickedInNmi(ENTRY_TEXT, true);
      computing.hasNestedNmi();
      assert.match(computing.capture().problems.join(), /nothing tells its registers \(the dump does not/);
      computing.panickedInNmi(KERNEL_TEXT, true);
      computing.hasNestedNmi();
      assert.deepEqual(computing.capture().problems, []);
      computing.damageNmi(136n);
      assert.match(computing.capture().problems.join(), /on its stack what does not agree\)$/);
    });

    test('are not believed if what an NMI has put down is damaged, or is not there yet', () => {
      for (const from of [40n, 136n] as const) {
        const computing = new Computing(release);
        computing.panickedInNmi(KERNEL_TEXT, true);
        computing.damageNmi(from);
        assert.match(computing.capture().problems.join(), /on its stack what does not agree\)$/);
      }
      const early = new Computing(release);
      early.panickedInNmi(KERNEL_TEXT, true);
      const { sp = 0n } = early.kernel.cpuNotes[0]?.registers ?? {};
      early.note({ sp: sp + 0x200n - 64n });
      assert.match(early.capture().problems.join(), /on its stack what does not agree\)$/);
    });

    test('are not believed if an exception with a stack of its own came to another', () => {
      for (const name of ['DB_stack', 'MCE_stack'] as const) {
        const computing = new Computing(release);
        computing.panickedInNmi(KERNEL_TEXT, true);
        const { sp = 0n } = computing.kernel.cpuNotes[0]?.registers ?? {};
        computing.cameOnStack(name, 0xffff_8880_0000_1000n);
        assert.deepEqual(computing.capture().problems, []);
        computing.cameOnStack(name, sp);
        assert.match(computing.capture().problems.join(), /\(an exception had come to another, each with/);
      }
    });

    test('are not believed while an exception from user mode is on a stack of its own', () => {
      const computing = new Computing(release);
      computing.isAtEntry(SWAPGS_IRETQ);
      computing.panickedInNmi(0x40_1234n, true, 0x33n);
      assert.match(computing.capture().problems.join(), /\(an exception with a stack of its own had come\)$/);
    });

    test('are not believed where the kernel does not show its entry code', () => {
      const computing = new Computing(release);
      computing.note({ cs: 0x10n, ip: KERNEL_TEXT });
      computing.kernel.symbols.delete('__entry_text_end');
      assert.match(computing.capture().problems.join(), /does not show where its entry code is/);
    });

    test('are not believed if the thread has segments that it may have changed', () => {
      const computing = new Computing(release);
      computing.set('thread.fsindex', 0x63);
      assert.deepEqual(computing.capture().problems, [
        'was on a CPU and has segments of its own, which it may have changed',
      ]);
    });

    test('are lost if components are in use that are off', () => {
      const computing = new Computing(release);
      computing.area.save(APIC_ID, xsaveArea(), { xcr0: 7n, kernelGsBase: GS_BASE });
      const why = 'are lost: what the processor with APIC id 2 saved is damaged';
      assert.deepEqual(computing.capture().problems, [`was computing on CPU 1: its vector registers ${why}`]);
    });

    test('are lost if stage zero did not save them, and the reason says why', () => {
      const computing = new Computing(release);
      computing.set('thread.fpu.last_cpu', 0);
      const why = 'cannot be told: by last_cpu they were on CPU 0';
      assert.deepEqual(computing.capture().problems, [`was computing on CPU 1: its vector registers ${why}`]);
    });

    test('are refused if the GS base is the kernel’s own, which it is before SWAPGS', () => {
      const computing = new Computing(release);
      computing.area.save(APIC_ID, xsaveArea(), { xcr0: ALL, kernelGsBase: 0xffff_8880_3ec0_0000n });
      assert.deepEqual(computing.capture().problems, ['has a thread pointer outside user space']);
    });
  });
}
