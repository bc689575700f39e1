import { closeSync, openSync, readSync } from 'node:fs';
import { guestPid } from '../../lab/guest.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import { AddressError } from '../../src/vmcore/errors.ts';
import { type PhysicalMemory, type PhysicalRange, WindowedMemory } from '../../src/vmcore/physical.ts';
import type { Window } from '../../src/vmcore/view.ts';

/** A part of memory that is put over, or beside, that of the guest. */
export interface Beside {
  readonly address: number;
  readonly bytes: Buffer;
}

/**
 * Memory of a guest below 2 GiB, where it lies in QEMU: it changes as the guest goes on, and is read anew
 * after `forget`.
 */
export class LivingMemory extends WindowedMemory implements PhysicalMemory {
  readonly ranges: readonly PhysicalRange[];
  readonly #beside: Beside;
  readonly #file: number;
  readonly #host: number;
  readonly #pages = new Map<number, Buffer>();

  /** @param host where in QEMU's address space the guest's memory begins: the monitor's `gpa2hva 0` */
  constructor(name: string, host: number, ranges: readonly PhysicalRange[], beside: Beside) {
    super();
    this.#file = openSync(`/proc/${guestPid(name)}/mem`, 'r');
    this.#host = host;
    this.#beside = beside;
    this.ranges = ranges;
  }

  forget(): void {
    this.#pages.clear();
  }

  has(physical: number, length: number): boolean {
    if (this.#isBeside(physical, length)) return true;
    return this.ranges.some(
      (range) => physical >= range.physical && physical + length <= range.physical + range.length,
    );
  }

  #isBeside(physical: number, length: number): boolean {
    const { address, bytes } = this.#beside;
    return physical >= address && physical + length <= address + bytes.length;
  }

  contiguous(physical: number, length: number): Window | undefined {
    return this.has(physical, length) ? this.window(physical, length) : undefined;
  }

  window(physical: number, length: number): Window {
    if (!this.has(physical, length)) throw new AddressError(physical, 'is not in the guest (physical)');
    const offset = physical % PAGE_SIZE;
    if (this.#isBeside(physical, length)) {
      const { address, bytes } = this.#beside;
      return {
        data: new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
        offset: physical - address,
      };
    }
    if (offset + length <= PAGE_SIZE) return { data: viewOf(this.#page(physical - offset)), offset };
    const copy = Buffer.alloc(length);
    readSync(this.#file, copy, 0, length, this.#host + physical);
    return { data: viewOf(copy), offset: 0 };
  }

  #page(physical: number): Buffer {
    const known = this.#pages.get(physical) ?? Buffer.alloc(PAGE_SIZE);
    if (!this.#pages.has(physical)) readSync(this.#file, known, 0, PAGE_SIZE, this.#host + physical);
    this.#pages.set(physical, known);
    return known;
  }

  writeRuns(): number {
    throw new Error('the memory of a living guest is not written anywhere');
  }

  close(): void {
    closeSync(this.#file);
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
