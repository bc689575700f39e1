import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { XFEATURE } from '../../../src/arch/x86-64/xstate.ts';
import { captureRegisters, LiveCpus, type OnCpu } from '../../../src/capture/arch/index.ts';
import { taskPtRegs } from '../../../src/linux/arch/x86/ptrace.ts';
import { type Task, TIF, taskAt } from '../../../src/linux/sched.ts';
import { symbols } from '../../../src/stage-zero/code.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { MadeArea, madeInputs } from '../../stage-zero/made-area.ts';
import { releases } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';

const PID = 4711;
/** The processor that the task was computing on, and its APIC id, which is another number. */
const CPU = 1;
const APIC_ID = 2;
const GS_BASE = 0x7fff_1234_5000n;
const KERNEL_TEXT = 0xffff_ffff_8123_4567n;
const ENTRY_TEXT = 0xffff_ffff_81c0_0000n;

/** Sizes and offsets of components in the standard format, as CPUID tells of a processor with AVX-512. */
const COMPONENTS = new Map<number, { readonly size: number; readonly offset: number }>([
  [XFEATURE.ymm, { size: 256, offset: 576 }],
  [XFEATURE.opmask, { size: 64, offset: 1088 }],
  [XFEATURE.zmmHi256, { size: 512, offset: 1152 }],
  [XFEATURE.hi16Zmm, { size: 1024, offset: 1664 }],
  [XFEATURE.pkru, { size: 8, offset: 2688 }],
]);
const XSAVE_BYTES = 2696;
const ALL = [...COMPONENTS.keys()].reduce((mask, number) => mask | (1n << BigInt(number)), 3n);
const XSTATE_BV = 512;

/** What XSAVE writes: each component filled with another byte, with a bit for those that are in use. */
function xsaveArea(inUse = ALL): Buffer {
  const area = Buffer.alloc(XSAVE_BYTES);
  area.writeUInt16LE(0x27f, 0);
  area.writeUInt32LE(0x9fc0, 24);
  area.writeUInt32LE(0xffff, 28);
  area.fill(0x87, 32, 160);
  area.fill(0x5e, 160, 416);
  for (const [number, { size, offset }] of COMPONENTS) area.fill(0x10 + number, offset, offset + size);
  area.writeUInt32LE(0x5555_5551, COMPONENTS.get(XFEATURE.pkru)?.offset ?? 0);
  area.writeBigUInt64LE(inUse, XSTATE_BV);
  return area;
}

/** A kernel of two CPUs with a task that was computing on one of them, of which everything agrees. */
class Computing {
  readonly kernel: MadeKernel;
  readonly area: MadeArea;
  readonly task: bigint;
  readonly #fpstate: bigint;
  readonly #exceptionStacks: bigint;

  constructor(release: (typeof releases)[number], xsave = xsaveArea()) {
    const kernel = new MadeKernel(release, 2);
    this.kernel = kernel;
    const inputs = madeInputs({ address: kernel.frame() * PAGE_SIZE });
    this.area = new MadeArea(inputs);
    for (let page = 1; page < this.area.bytes.length / PAGE_SIZE; page++) kernel.frame();
    this.area.save(APIC_ID, xsave, { xcr0: ALL, kernelGsBase: GS_BASE });
    this.area.finish();
    kernel.notes.push(...this.area.notes);

    kernel.allocatePerCpu('cpu_info', 'cpuinfo_x86');
    const apicIdMember = kernel.hasMember('cpuinfo_x86', 'topo.initial_apicid')
      ? 'topo.initial_apicid'
      : 'initial_apicid';
    for (const [cpu, id] of [0, APIC_ID].entries())
      kernel.set('cpuinfo_x86', kernel.perCpu('cpu_info', cpu), apicIdMember, id);

    this.task = kernel.allocate('task_struct');
    this.set('pid', PID);
    this.set('thread.fpu.last_cpu', CPU);
    this.set('thread.fsbase', 0x7f00_0000_0740n);
    this.set('thread.gsbase', 0x1111n);
    this.#fpstate = kernel.physicalToVirtual(kernel.tables.allocate());
    kernel.set('fpstate', this.#fpstate, 'size', XSAVE_BYTES);
    kernel.set('fpstate', this.#fpstate, 'xfeatures', ALL);
    kernel.set('fpstate', this.#fpstate, 'user_xfeatures', ALL);
    this.set('thread.fpu.fpstate', this.#fpstate);
    const stack = kernel.physicalToVirtual(kernel.tables.allocate());
    for (let page = 1; page < 4; page++) kernel.tables.allocate();
    this.set('stack', stack);
    this.#setRegisters(stack);
    kernel.variable('fpu_fpregs_owner_ctx', 0n);
    // The second CPU's is some pages behind: room for it.
    for (let page = 1; page < 8; page++) kernel.tables.allocate();
    this.owner(kernel.memberAddress('task_struct', this.task, 'thread.fpu'));
    for (const [symbol, value] of [
      ['xstate_sizes', 'size'],
      ['xstate_offsets', 'offset'],
    ] as const) {
      const words = Buffer.alloc(19 * 4);
      for (const [number, layout] of COMPONENTS) words.writeUInt32LE(layout[value], number * 4);
      this.#table(symbol, words);
    }
    this.#table('xstate_flags', Buffer.alloc(19 * 4));
    kernel.symbols.set('__entry_text_start', ENTRY_TEXT);
    kernel.symbols.set('__entry_text_end', ENTRY_TEXT + 0x1000n);
    this.#exceptionStacks = kernel.physicalToVirtual(kernel.tables.allocate());
    for (let page = 1; page < 32; page++) kernel.tables.allocate();
    kernel.variable('cea_exception_stacks', 0n);
    for (let page = 1; page < 8; page++) kernel.tables.allocate();
    this.#perCpu('cea_exception_stacks', this.#exceptionStacks);
  }

  #perCpu(name: string, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.kernel.write(this.kernel.perCpu(name, CPU), bytes);
  }

  /** The CPU has panicked on the stack of NMIs, which came when it was at `ip`. */
  panickedInNmi(ip: bigint): void {
    const { kernel } = this;
    const { offsetBytes = 0, sizeBytes = 0 } =
      kernel.layouts.member('cea_exception_stacks', 'NMI_stack') ?? {};
    const end = this.#exceptionStacks + BigInt(offsetBytes + sizeBytes);
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(ip);
    kernel.write(end - 40n, bytes);
    this.note({ cs: 0x10n, ip: KERNEL_TEXT, sp: end - 0x200n });
  }

  /** The CPU uses its vector registers for the kernel's own work, or is about to. */
  usesThemItself(): void {
    this.kernel.variable('in_kernel_fpu', 0n);
    for (let page = 1; page < 8; page++) this.kernel.tables.allocate();
    this.#perCpu('in_kernel_fpu', 1n);
  }

  #table(symbol: string, content: Buffer): void {
    const table = this.kernel.physicalToVirtual(this.kernel.tables.allocate());
    this.kernel.write(table, content);
    this.kernel.symbols.set(symbol, table);
  }

  /** User registers on the task's stack, and the same in the crash note of its CPU. */
  #setRegisters(stack: bigint): void {
    const { kernel } = this;
    const size = kernel.sizeOf('pt_regs');
    const bytes = Buffer.alloc(size);
    for (let at = 0; at < size; at += 8) bytes.writeBigUInt64LE(BigInt(0x1000 + at), at);
    const at = stack + BigInt((kernel.layouts.sizeOf('thread_union') ?? 16384) - size);
    kernel.write(at, bytes);
    const has = (path: string): boolean => kernel.hasMember('pt_regs', path);
    kernel.set('pt_regs', at, has('csx') ? 'csx' : 'cs', 0x33);
    kernel.set('pt_regs', at, has('ssx') ? 'ssx' : 'ss', 0x2b);
    kernel.set('pt_regs', at, 'flags', 0x202);
    kernel.set('pt_regs', at, 'orig_ax', -1n);
    const { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, cs, sp } = taskPtRegs(
      kernel,
      stack,
    );
    const general = { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di };
    kernel.cpuNotes.push({ pid: PID, registers: { ...general, ip, cs, sp } });
  }

  set(path: string, value: bigint | number): void {
    this.kernel.set('task_struct', this.task, path, value);
  }

  /** Who the registers in the CPU belong to. */
  owner(fpu: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(fpu);
    this.kernel.write(this.kernel.perCpu('fpu_fpregs_owner_ctx', CPU), bytes);
  }

  /** Puts other values into the crash note. */
  note(registers: Record<string, bigint>): void {
    const [note] = this.kernel.cpuNotes.splice(0);
    this.kernel.cpuNotes.push({ pid: PID, registers: { ...note?.registers, ...registers } });
  }

  get taskView(): Task {
    return taskAt(this.kernel, this.task);
  }

  /** What is known of the CPU: stage zero's memory is as it is now. */
  live(cpu = CPU): OnCpu['live'] {
    const { bytes, inputs } = this.area;
    this.kernel.write(this.kernel.physicalToVirtual(inputs.address), bytes);
    return new LiveCpus(this.kernel).of(cpu, this.taskView);
  }

  capture(): ReturnType<typeof captureRegisters> {
    return captureRegisters(this.kernel, this.taskView, { cpu: CPU, live: this.live() });
  }
}

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
      const problems = ['was on a CPU, on its way into or out of the kernel: nothing tells its registers'];
      const entering = new Computing(release);
      entering.note({ cs: 0x10n, ip: ENTRY_TEXT + 16n });
      assert.deepEqual(entering.capture().problems, problems);
      entering.note({ ip: ENTRY_TEXT + 0x1000n });
      assert.deepEqual(entering.capture().problems, []);
      for (const name of ['sync_regs', '__switch_to']) {
        entering.kernel.text.set(ENTRY_TEXT + 0x1000n, name);
        assert.deepEqual(entering.capture().problems, problems, name);
      }
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
      assert.deepEqual(computing.capture().problems, [`was computing on a CPU: its vector registers ${why}`]);
    });

    test('are lost if stage zero did not save them, and the reason says why', () => {
      const computing = new Computing(release);
      computing.set('thread.fpu.last_cpu', 0);
      const why = 'cannot be told: by last_cpu they were on CPU 0';
      assert.deepEqual(computing.capture().problems, [`was computing on a CPU: its vector registers ${why}`]);
    });

    test('are refused if the GS base is the kernel’s own, which it is before SWAPGS', () => {
      const computing = new Computing(release);
      computing.area.save(APIC_ID, xsaveArea(), { xcr0: ALL, kernelGsBase: 0xffff_8880_3ec0_0000n });
      assert.deepEqual(computing.capture().problems, ['has a thread pointer outside user space']);
    });
  });
}
