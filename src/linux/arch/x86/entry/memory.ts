import { PAGE_SIZE } from '../../../../system/page.ts';
import { hex, readable } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { pageNumber } from '../../../../vmcore/page-table.ts';
import { LONGEST_INSTRUCTION, NotFollowed } from './instruction.ts';
import type { MachineMemory } from './operands.ts';

const IN_PAGE = BigInt(PAGE_SIZE - 1);

/** A part of memory, `end` not in it. */
export interface Area {
  readonly start: bigint;
  readonly end: bigint;
}

/** What was written of a page: `isWritten` is 1 for each such byte of `bytes`. */
interface WrittenPage {
  readonly bytes: Uint8Array;
  readonly isWritten: Uint8Array;
}

/**
 * A dead kernel's memory for its entry code: the stacks that this may use, what is the CPU's own, constants
 * and code. What is written is kept apart.
 */
export class EntryMemory implements MachineMemory {
  readonly #kernel: Kernel;
  readonly #cpu: number;
  readonly #stacks: readonly Area[];
  /** By the number of the page. */
  readonly #written = new Map<number, WrittenPage>();
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
    let rest = value;
    for (let i = 0; i < bytes; i++) {
      const at = address + BigInt(i);
      const page = this.#writtenPage(pageNumber(at));
      const inPage = Number(at & IN_PAGE);
      page.bytes[inPage] = Number(rest & 0xffn);
      page.isWritten[inPage] = 1;
      rest >>= 8n;
    }
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
    const found = this.#read(address, bytes);
    const first = Number(address & IN_PAGE);
    let page = this.#written.get(pageNumber(address));
    for (let i = 0; i < bytes; i++) {
      const inPage = (first + i) % PAGE_SIZE;
      if (i > 0 && inPage === 0) page = this.#written.get(pageNumber(address + BigInt(i)));
      if (page?.isWritten[inPage] === 1) found[i] = page.bytes[inPage] ?? 0;
    }
    if (bytes === 8) return found.readBigUInt64LE();
    return BigInt(found.readUIntLE(0, bytes));
  }

  #writtenPage(number: number): WrittenPage {
    const known = this.#written.get(number);
    if (known !== undefined) return known;
    const page = { bytes: new Uint8Array(PAGE_SIZE), isWritten: new Uint8Array(PAGE_SIZE) };
    this.#written.set(number, page);
    return page;
  }

  #read(address: bigint, bytes: number): Buffer {
    const found = readable(() => this.#kernel.memory.read(address, bytes));
    if (found === undefined) throw new NotFollowed(`${hex(address)} cannot be read`);
    return found;
  }
}
