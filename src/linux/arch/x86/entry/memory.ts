import { PAGE_SIZE } from '../../../../system/page.ts';
import { hex, readable } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { LONGEST_INSTRUCTION, NotFollowed } from './instruction.ts';
import type { MachineMemory } from './operands.ts';

/** A part of memory, `end` not in it. */
export interface Area {
  readonly start: bigint;
  readonly end: bigint;
}

/**
 * A dead kernel's memory for its entry code: the stacks that this may use, what is the CPU's own, constants
 * and code. What is written is kept apart.
 */
export class EntryMemory implements MachineMemory {
  readonly #kernel: Kernel;
  readonly #cpu: number;
  readonly #stacks: readonly Area[];
  readonly #written = new Map<bigint, number>();
  /** Addresses that were asked for as the CPU's own. */
  readonly #own = new Set<bigint>();

  constructor(kernel: Kernel, cpu: number, stacks: readonly Area[]) {
    this.#kernel = kernel;
    this.#cpu = cpu;
    this.#stacks = stacks;
  }

  code(address: bigint): Buffer {
    const rest = PAGE_SIZE - Number(address % BigInt(PAGE_SIZE));
    const whole = readable(() => this.#kernel.memory.read(address, LONGEST_INSTRUCTION));
    return whole ?? this.#read(address, Math.min(rest, LONGEST_INSTRUCTION));
  }

  load(address: bigint, bytes: number): bigint {
    this.#require(address, bytes);
    return this.#value(address, bytes);
  }

  loadOfKernel(address: bigint, bytes: number): bigint {
    return this.#value(address, bytes);
  }

  store(address: bigint, bytes: number, value: bigint): void {
    this.#require(address, bytes);
    for (let i = 0n; i < bytes; i++) this.#written.set(address + i, Number((value >> (8n * i)) & 0xffn));
  }

  perCpu(offset: bigint): bigint {
    const address = BigInt.asUintN(64, this.#kernel.perCpu(offset, this.#cpu));
    this.#own.add(address);
    return address;
  }

  /** The stack pointer may be a user's: nothing is read or written there. */
  #require(address: bigint, bytes: number): void {
    const isOn = this.#stacks.some(({ start, end }) => address >= start && address + BigInt(bytes) <= end);
    if (!isOn && !this.#own.has(address)) throw new NotFollowed(`${hex(address)} is on no stack of it`);
  }

  #value(address: bigint, bytes: number): bigint {
    const old = this.#read(address, bytes);
    let value = 0n;
    for (let i = bytes - 1; i >= 0; i--)
      value = (value << 8n) | BigInt(this.#written.get(address + BigInt(i)) ?? old[i] ?? 0);
    return value;
  }

  #read(address: bigint, bytes: number): Buffer {
    const found = readable(() => this.#kernel.memory.read(address, bytes));
    if (found === undefined) throw new NotFollowed(`${hex(address)} cannot be read`);
    return found;
  }
}
