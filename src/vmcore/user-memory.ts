import { AddressError } from './errors.ts';
import type { Kernel } from './kernel.ts';
import { type PageTable, translatePage } from './page-table.ts';

const PAGE = 4096;
/** More than this is not copied out at once: pages that are many go from the mapping to their destination. */
const MAX_BYTES = 64 << 20;

/** A process's own view of its memory, through its page tables: for small reads (a structure, a string, a stack's end). */
export class UserMemory {
  readonly #kernel: Kernel;
  readonly #table: PageTable;

  /** `pgd` is `mm_struct.pgd`. */
  constructor(kernel: Kernel, pgd: bigint) {
    this.#kernel = kernel;
    this.#table = kernel.memory.userTable(pgd);
  }

  /** Physical address of a user address, or undefined where no page is present (never touched, or swapped out). */
  translate(address: number): number | undefined {
    const frame = translatePage(this.#kernel.physical, this.#table, Math.floor(address / PAGE));
    return frame === undefined ? undefined : frame + (address % PAGE);
  }

  /** `length` bytes, copied. Throws an AddressError that names the first page that is not there. */
  read(address: number, length: number): Buffer {
    if (length > MAX_BYTES)
      throw new AddressError(address, `is the start of ${length} bytes, which is not believed`);
    const copy = Buffer.alloc(length);
    for (let done = 0; done < length; ) {
      const at = address + done;
      const part = Math.min(length - done, PAGE - (at % PAGE));
      const physical = this.translate(at);
      if (physical === undefined) throw new AddressError(at, 'is not present in the process');
      copy.set(this.#kernel.physical.view(physical, part), done);
      done += part;
    }
    return copy;
  }
}
