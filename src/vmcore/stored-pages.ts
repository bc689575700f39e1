import type { PhysicalMemory, PhysicalRange } from './physical.ts';

/**
 * Addresses from here on are of no memory, but of pages that a kernel had put elsewhere. Physical addresses
 * are below (x86-64 has 52 bits of them), so that one number says where a page is.
 */
export const STORED = 2 ** 52;

/** Pages that are not in memory, by their addresses from {@link STORED} on. */
export interface StoredPages {
  /** Whether all of these bytes can be had. */
  has(address: number, length: number): boolean;
  /** Why they cannot; undefined if they can. */
  problem(address: number): string | undefined;
  /** Fills `to` with the bytes from `address` on. Throws a VmcoreError if they cannot be read. */
  read(address: number, to: Uint8Array): void;
  /**
   * Appends bytes to a file, without a copy in JavaScript. Throws a VmcoreError if they cannot be read, a
   * SystemCallError if the file does not take them.
   */
  write(fd: number, address: number, length: number): void;
  close(): void;
}

/** What processes and files had, wherever the kernel had put it. */
export type PageContent = Pick<PhysicalMemory, 'has' | 'leftOut' | 'withView' | 'writeRuns'>;

/** Memory, and pages that are stored elsewhere, by one kind of address. */
class MemoryAndStored implements PageContent {
  readonly #memory: PhysicalMemory;
  readonly #stored: StoredPages;

  constructor(memory: PhysicalMemory, stored: StoredPages) {
    this.#memory = memory;
    this.#stored = stored;
  }

  has(address: number, length: number): boolean {
    return address < STORED ? this.#memory.has(address, length) : this.#stored.has(address, length);
  }

  leftOut(address: number): boolean {
    return address < STORED && this.#memory.leftOut?.(address) === true;
  }

  withView<T>(address: number, length: number, use: (bytes: Uint8Array) => T): T {
    if (address < STORED) return this.#memory.withView(address, length, use);
    const bytes = Buffer.alloc(length);
    this.#stored.read(address, bytes);
    return use(bytes);
  }

  writeRuns(fd: number, runs: readonly PhysicalRange[]): number {
    let written = 0;
    for (let at = 0; at < runs.length; ) {
      const { physical, length } = runs[at]!;
      if (physical >= STORED) {
        this.#stored.write(fd, physical, length);
        written += length;
        at++;
        continue;
      }
      const next = runs.findIndex((run, i) => i > at && run.physical >= STORED);
      const end = next < 0 ? runs.length : next;
      written += this.#memory.writeRuns(fd, runs.slice(at, end));
      at = end;
    }
    return written;
  }
}

/** The content of pages of a kernel, by the addresses that runs of pages have. */
export function contentOf({
  physical,
  stored,
}: {
  readonly physical: PhysicalMemory;
  readonly stored?: StoredPages | undefined;
}): PageContent {
  return stored === undefined ? physical : new MemoryAndStored(physical, stored);
}
