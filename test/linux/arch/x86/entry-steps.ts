import assert from 'node:assert/strict';
import { decode } from '../../../../src/linux/arch/x86/entry/instruction.ts';
import { Machine } from '../../../../src/linux/arch/x86/entry/machine.ts';
import type { GeneralRegisters, MachineMemory } from '../../../../src/linux/arch/x86/entry/operands.ts';
import type { EntryOutcome } from '../../../../src/linux/arch/x86/entry-registers.ts';
import type { MadeEntry, Values } from './made-entry.ts';

/** Writes what the machine writes: the kernel's memory is as it is at that moment. */
class Live implements MachineMemory {
  readonly #kernel: MadeEntry;

  constructor(kernel: MadeEntry) {
    this.#kernel = kernel;
  }

  code(address: bigint): Buffer {
    return this.#kernel.memory.read(address, 15);
  }

  load(address: bigint, bytes: number): bigint {
    const read = this.#kernel.memory.read(address, bytes);
    return read.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }

  loadOfKernel(address: bigint, bytes: number): bigint {
    return this.load(address, bytes);
  }

  store(address: bigint, bytes: number, value: bigint): void {
    const buffer = Buffer.alloc(8);
    buffer.writeBigUInt64LE(value);
    this.#kernel.write(address, buffer.subarray(0, bytes));
  }

  perCpu(offset: bigint): bigint {
    return this.#kernel.perCpu(BigInt.asUintN(64, offset));
  }
}

type Start = GeneralRegisters & { readonly ip: bigint; readonly flags: bigint };

function startOf(values: Values): Start {
  const at = (name: string): bigint => values[name] ?? 0n;
  const [ax, cx, dx, bx, sp, bp, si, di] = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'].map(at);
  const [r8, r9, r10, r11, r12, r13, r14, r15] = [8, 9, 10, 11, 12, 13, 14, 15].map((n) => at(`r${n}`));
  const all = { ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15 };
  const whole = Object.fromEntries(Object.entries(all).map(([name, value]) => [name, value ?? 0n]));
  return { ...NONE, ...whole, ip: at('ip'), flags: at('flags') };
}

const NONE: GeneralRegisters = {
  ...{ ax: 0n, cx: 0n, dx: 0n, bx: 0n, sp: 0n, bp: 0n, si: 0n, di: 0n },
  ...{ r8: 0n, r9: 0n, r10: 0n, r11: 0n, r12: 0n, r13: 0n, r14: 0n, r15: 0n },
};

/**
 * Executes the entry code from a start to its end, and decides at each of its instructions as if the
 * processor had been stopped there.
 * @returns how many there were
 */
export function atEach(
  kernel: MadeEntry,
  start: Values,
  look: (outcome: EntryOutcome, where: string) => void,
): number {
  const machine = new Machine(new Live(kernel), startOf(start));
  const inText = (address: bigint): boolean => {
    const name = kernel.symbolAt(address)?.name ?? '';
    const isText =
      address >= kernel.symbol('__entry_text_start') && address < kernel.symbol('__entry_text_end');
    return isText || /^(sync_regs|.*(untrain_ret|return_thunk|safe_ret))$/.test(name);
  };
  for (let steps = 1; ; steps++) {
    assert.ok(steps < 4000);
    const symbol = kernel.symbolAt(machine.ip);
    const where = `at ${symbol?.name}+0x${symbol?.offset.toString(16)}`;
    look(kernel.decide({ ...machine.all, ip: machine.ip, flags: machine.flags | 2n }), where);
    const instruction = decode(kernel.memory.read(machine.ip, 15));
    const target = machine.ip + BigInt(instruction.length) + instruction.immediate;
    const isEnd = instruction.opcode === 0xe8 && !inText(BigInt.asUintN(64, target));
    if (isEnd || instruction.opcode === 0xcf || instruction.opcode === 0x0f07) return steps;
    machine.execute(instruction);
  }
}
