import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import * as z from 'zod';
import {
  type EntryOutcome,
  entryOutcome,
  entryText,
} from '../../../../src/linux/arch/x86/entry-registers.ts';
import { taskPtRegs } from '../../../../src/linux/arch/x86/ptrace.ts';
import { type Task, taskAt } from '../../../../src/linux/sched.ts';
import { PAGE_SIZE } from '../../../../src/system/page.ts';
import type { Release } from '../../../vmcore/fixtures.ts';
import { MadeKernel } from '../../../vmcore/made-kernel.ts';
import { PRESENT } from '../../../vmcore/tables.ts';

const fixtureSchema = z.object({
  release: z.string(),
  symbols: z.record(z.string(), z.string()),
  code: z.array(z.object({ address: z.string(), bytes: z.string() })),
});

/** The CPU's own memory, which the code addresses by offsets: its first pages. */
const CPU_BYTES = 0x40000n;
const PAGE = BigInt(PAGE_SIZE);
/** All that its code can be in (__START_KERNEL_map, KERNEL_IMAGE_SIZE): the fixture has a part of it. */
const KERNEL_TEXT = { start: 0xffff_ffff_8000_0000n, end: 0xffff_ffff_c000_0000n };

/** The entry code of a kernel that ran, and its symbols: see lab/fixture/entry-text.ts. */
function readFixture(release: Release) {
  const path = join(import.meta.dirname, '../../../fixtures/entry', `${release}.json.zst`);
  const { symbols, code } = fixtureSchema.parse(
    JSON.parse(zstdDecompressSync(readFileSync(path)).toString()),
  );
  return {
    symbols: new Map(Object.entries(symbols).map(([name, address]) => [name, BigInt(`0x${address}`)])),
    code: code.map(({ address, bytes }) => ({
      address: BigInt(`0x${address}`),
      bytes: Buffer.from(bytes, 'base64'),
    })),
  };
}

/** Values that a test gives to registers, by the names of pt_regs. */
export type Values = Record<string, bigint>;

/**
 * A kernel made by hand with the real entry code of a release at its own addresses, one CPU, and a task that
 * this executes. Memory can be put back to what it was.
 */
export class MadeEntry extends MadeKernel {
  readonly sorted: readonly (readonly [bigint, string])[];
  readonly #cpuArea: bigint;
  readonly #task: bigint;
  readonly stack: bigint;
  readonly entryStackEnd: bigint;
  readonly interruptStackEnd: bigint;

  constructor(release: Release) {
    super(release, 1);
    const { symbols, code } = readFixture(release);
    for (const [name, address] of symbols) this.symbols.set(name, address);
    this.symbols.set('_stext', KERNEL_TEXT.start);
    this.symbols.set('_etext', KERNEL_TEXT.end);
    this.sorted = [...symbols]
      .map(([name, address]) => [address, name] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1));
    for (const { address, bytes } of code) this.#map(address, bytes);
    this.#cpuArea = this.#area(Number(CPU_BYTES / PAGE));
    this.#task = this.allocate('task_struct');
    this.stack = this.#area(4);
    this.entryStackEnd = this.#area(1) + PAGE;
    this.interruptStackEnd = this.#area(4) + 4n * PAGE;
    this.set('task_struct', this.#task, 'stack', this.stack);
    this.#own('cpu_tss_rw', 4n, this.entryStackEnd);
    const hot = this.symbols.get('pcpu_hot');
    const top = this.userRegisters + BigInt(this.sizeOf('pt_regs'));
    if (hot === undefined) {
      this.#own('cpu_current_top_of_stack', 0n, top);
      this.#own('hardirq_stack_ptr', 0n, this.interruptStackEnd - 8n);
    } else {
      const at = this.perCpu('pcpu_hot');
      this.set('pcpu_hot', at, 'hardirq_stack_ptr', this.interruptStackEnd - 8n);
      // The member that the code takes: behind `current_task` and three numbers.
      this.#own('pcpu_hot', 0x18n, top);
    }
  }

  #area(pages: number): bigint {
    const first = this.tables.allocate();
    for (let page = 1; page < pages; page++) this.tables.allocate();
    return this.physicalToVirtual(first);
  }

  #map(address: bigint, bytes: Buffer): void {
    for (let at = address; at < address + BigInt(bytes.length); at++) {
      if (at % PAGE !== 0n && at !== address) continue;
      const page = at - (at % PAGE);
      if (!this.#isMapped(page)) this.tables.set(page, BigInt(this.tables.allocate()) | PRESENT);
      const rest = Number(page + PAGE - at);
      const from = Number(at - address);
      this.write(at, bytes.subarray(from, Math.min(bytes.length, from + rest)));
    }
  }

  #isMapped(page: bigint): boolean {
    try {
      this.memory.translate(page);
      return true;
    } catch {
      return false;
    }
  }

  #own(name: string, offset: bigint, value: bigint): void {
    this.writeWord(this.perCpu(name) + offset, value);
  }

  override perCpu(symbolOrAddress: string | bigint): bigint {
    const base = typeof symbolOrAddress === 'string' ? this.symbol(symbolOrAddress) : symbolOrAddress;
    return base < CPU_BYTES ? this.#cpuArea + base : base;
  }

  override symbolAt(address: bigint): { name: string; offset: number } | undefined {
    let [low, high] = [0, this.sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.sorted[middle]?.[0] ?? 0n) <= address) low = middle + 1;
      else high = middle;
    }
    const found = this.sorted[low - 1];
    return found && { name: found[1], offset: Number(address - found[0]) };
  }

  get task(): Task {
    return taskAt(this, this.#task);
  }

  /** Where the stack pointer may be when the kernel is interrupted, aligned as the processor does it. */
  get kernelStackPointers(): bigint[] {
    const own = this.userRegisters - 0x100n;
    return [own - (own % 16n), this.interruptStackEnd - 0x100n];
  }

  /** Where the task's user registers belong. */
  get userRegisters(): bigint {
    return taskPtRegs(this, this.stack).address;
  }

  writeWord(address: bigint, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
    this.write(address, bytes);
  }

  /** What becomes of the task with these registers in its processor. */
  decide(registers: Values): EntryOutcome {
    const text = entryText(this);
    if (text === undefined) throw new Error('the fixture has no entry text');
    return entryOutcome(this, text, 0, this.task, registers);
  }
}

export const GENERAL = 'r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di'.split(' ');
export const NO_CALL = 0xffff_ffff_ffff_ffffn;
export const ENOSYS = 0xffff_ffff_ffff_ffdan;
export const KERNEL_IP = 0xffff_ffff_8000_1234n;

export const [USER_IP, USER_FLAGS] = [0x40_1234n, 0x246n];

/** User registers of which each has a value of its own. */
export const USER: Values = {
  ...Object.fromEntries(GENERAL.map((name, i) => [name, 0x1111_0000_0000n * BigInt(i + 1) + BigInt(i)])),
  ...{ orig_ax: NO_CALL, ip: USER_IP, cs: 0x33n, flags: USER_FLAGS, sp: 0x7ffd_1234_5678n, ss: 0x2bn },
};

/** Puts a frame down as the processor does, and says where it is. */
export function frame(kernel: MadeEntry, end: bigint, values: Values, error?: bigint): bigint {
  const words = [...['ss', 'sp', 'flags', 'cs', 'ip'].map((name) => values[name] ?? 0n)];
  if (error !== undefined) words.push(error);
  for (const [i, value] of words.entries()) kernel.writeWord(end - BigInt(8 * (i + 1)), value);
  return end - BigInt(8 * words.length);
}

/** Fills the place of the task's user registers. */
export function userRegisters(kernel: MadeEntry, values: Values): void {
  const names = [...GENERAL, 'orig_ax', 'ip', 'cs', 'flags', 'sp', 'ss'];
  for (const [i, name] of names.entries())
    kernel.writeWord(kernel.userRegisters + BigInt(i * 8), values[name] ?? 0n);
}

/** Registers of an earlier entry, none of which may come out. */
export function stale(kernel: MadeEntry): void {
  const old = Object.fromEntries(Object.keys(USER).map((name) => [name, 0x5555n]));
  userRegisters(kernel, { ...old, cs: 0x33n, ss: 0x2bn, orig_ax: 231n });
}

/** For messages: JSON has no large numbers. */
export function text(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}
