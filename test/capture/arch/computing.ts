import { XFEATURE } from '../../../src/arch/x86-64/xstate.ts';
import { captureRegisters, LiveCpus, type OnCpu } from '../../../src/capture/arch/index.ts';
import { taskPtRegs } from '../../../src/linux/arch/x86/ptrace.ts';
import { type Task, taskAt } from '../../../src/linux/sched.ts';
import { PAGE_SIZE } from '../../../src/system/page.ts';
import { MadeArea, madeInputs } from '../../stage-zero/made-area.ts';
import { type releases, word } from '../../vmcore/fixtures.ts';
import { MadeKernel } from '../../vmcore/made-kernel.ts';
import { PRESENT } from '../../vmcore/tables.ts';

const PID = 4711;
/** The processor that the task was computing on, and its APIC id, which is another number. */
const CPU = 1;
export const APIC_ID = 2;
export const GS_BASE = 0x7fff_1234_5000n;
export const KERNEL_TEXT = 0xffff_ffff_8123_4567n;
export const ENTRY_TEXT = 0xffff_ffff_81c0_0000n;

/** Sizes and offsets of components in the standard format, as CPUID tells of a processor with AVX-512. */
export const COMPONENTS = new Map<number, { readonly size: number; readonly offset: number }>([
  [XFEATURE.ymm, { size: 256, offset: 576 }],
  [XFEATURE.opmask, { size: 64, offset: 1088 }],
  [XFEATURE.zmmHi256, { size: 512, offset: 1152 }],
  [XFEATURE.hi16Zmm, { size: 1024, offset: 1664 }],
  [XFEATURE.pkru, { size: 8, offset: 2688 }],
]);
const XSAVE_BYTES = 2696;
export const ALL = [...COMPONENTS.keys()].reduce((mask, number) => mask | (1n << BigInt(number)), 3n);
const XSTATE_BV = 512;

/** What XSAVE writes: each component filled with another byte, with a bit for those that are in use. */
export function xsaveArea(inUse = ALL): Buffer {
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

const GENERAL = 'r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di'.split(' ');

/** A kernel of two CPUs with a task that was computing on one of them, of which everything agrees. */
export class Computing {
  readonly kernel: MadeKernel;
  readonly area: MadeArea;
  readonly task: bigint;
  readonly #fpstate: bigint;
  readonly #exceptionStacks: bigint;
  /** Where the stack pointer was before the NMI. */
  #cameFrom = 0n;

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
    kernel.variable('panic_cpu', 0n);
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

  get userRegisters(): bigint {
    return taskPtRegs(this.kernel, this.taskView.stack).address;
  }

  /** Where a stack for what may come at any time ends. */
  #stackEnd(name: string): bigint {
    const { offsetBytes = 0, sizeBytes = 0 } = this.kernel.layouts.member('cea_exception_stacks', name) ?? {};
    return this.#exceptionStacks + BigInt(offsetBytes + sizeBytes);
  }

  #putFrame(at: bigint, ip: bigint, cs: bigint, sp: bigint): void {
    const { flags = 0n } = this.kernel.cpuNotes[0]?.registers ?? {};
    for (const [i, value] of [ip, cs, flags, sp, 0x18n].entries())
      this.kernel.write(at + BigInt(i * 8), word(value));
  }

  /**
   * The CPU has panicked on the stack of NMIs, which came when it was at `ip`: `isWhole`, with the registers
   * of its note, and both copies like the frame of the processor; otherwise the first one is another.
   */
  panickedInNmi(ip: bigint, isWhole = false, cs = 0x10n): void {
    const { kernel } = this;
    const end = this.#stackEnd('NMI_stack');
    const registers = kernel.cpuNotes[0]?.registers ?? {};
    if (registers.sp !== end - 0x200n) this.#cameFrom = registers.sp ?? 0n;
    for (const at of [40n, 96n, 136n]) this.#putFrame(end - at, ip, cs, this.#cameFrom);
    if (isWhole) {
      const regs = end - 96n - BigInt(kernel.sizeOf('pt_regs'));
      for (const name of GENERAL) kernel.set('pt_regs', regs, name, registers[name] ?? 0n);
    } else kernel.write(end - 96n, Buffer.alloc(40));
    this.note({ cs: 0x10n, ip: KERNEL_TEXT, sp: end - 0x200n });
  }

  /** Another NMI came in the one that panicked: the processor's frame is of the handler now. */
  hasNestedNmi(): void {
    const end = this.#stackEnd('NMI_stack');
    this.#putFrame(end - 40n, KERNEL_TEXT, 0x10n, end - 0x300n);
  }

  /** What came to the NMI's handler, or to what it was in, has a stack of its own. */
  cameOnStack(name: 'DB_stack' | 'MCE_stack', before: bigint): void {
    const end = this.#stackEnd(name);
    this.#putFrame(end - 40n, KERNEL_TEXT, 0x10n, before);
    this.note({ cs: 0x10n, ip: KERNEL_TEXT, sp: end - 0x200n });
  }

  /** Overwrites words of the frame that the processor has put down for an NMI, or of its outermost copy. */
  damageNmi(from: 40n | 136n): void {
    this.kernel.write(this.#stackEnd('NMI_stack') - from, Buffer.alloc(40));
  }

  /**
   * The entry text begins with this code, and the CPU was at an instruction of it, on the task's stack, from
   * which it has taken all registers up to `ip`.
   */
  isAtEntry(code: readonly number[], at = 0): void {
    const { kernel } = this;
    kernel.tables.set(ENTRY_TEXT, BigInt(kernel.tables.allocate()) | PRESENT);
    kernel.write(ENTRY_TEXT, Buffer.from(code));
    kernel.variable('cpu_tss_rw', 0n);
    for (let page = 1; page < 8; page++) kernel.tables.allocate();
    const regs = taskPtRegs(kernel, this.taskView.stack).address;
    const sp = kernel.memberAddress('pt_regs', regs, 'ip');
    this.note({ cs: 0x10n, ip: ENTRY_TEXT + BigInt(at), sp, flags: 2n });
  }

  /** The base that the CPU's own memory of the kernel is at. */
  get kernelGsBase(): bigint {
    return this.kernel.perCpu(0n, CPU);
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

  /** All problems are in `problems`. */
  capture(): ReturnType<typeof captureRegisters> {
    const found = captureRegisters(this.kernel, this.taskView, {
      cpu: CPU,
      live: this.live(),
      isLeaving: false,
    });
    return { ...found, problems: [...found.problems, ...found.problemsOfState, ...found.problemsOfValues] };
  }
}
