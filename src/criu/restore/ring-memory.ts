import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { PlannedRing } from '../images/plan/restore-plan.ts';

const WORD_BYTES = 4;

/** The shared memory of a ring, as its process has it mapped. */
export class RingMemory {
  readonly #memory: number;
  readonly #rings: number;
  readonly #entries: number;
  readonly #word = Buffer.alloc(WORD_BYTES);

  /**
   * Throws an Error if not both parts are mapped as a whole, or the memory cannot be opened. The rings may be
   * mapped once for requests and once for completions, each as far as needed.
   */
  constructor({
    pid,
    areas,
    ringsBytes,
    entriesBytes,
  }: Pick<PlannedRing, 'pid' | 'areas' | 'ringsBytes' | 'entriesBytes'>) {
    const start = (part: PlannedRing['areas'][number]['part'], length: number): number => {
      const area = areas.find((one) => one.part === part && one.bytes >= length);
      if (area === undefined) throw new Error(`its ${part} are not mapped as a whole`);
      return area.start;
    };
    this.#rings = start('rings', ringsBytes);
    this.#entries = start('entries', entriesBytes);
    this.#memory = openSync(`/proc/${pid}/mem`, 'r+');
  }

  close(): void {
    closeSync(this.#memory);
  }

  /** A 32-bit word of the rings. */
  word(offset: number): number {
    const read = readSync(this.#memory, this.#word, 0, WORD_BYTES, this.#rings + offset);
    if (read !== WORD_BYTES) throw new Error('its rings cannot be read');
    return this.#word.readUInt32LE(0);
  }

  /** Sets one; of a larger number, or one below 0, its 32 low bits. */
  setWord(offset: number, value: number): void {
    this.#word.writeUInt32LE(value >>> 0, 0);
    this.#write(this.#word, this.#rings + offset);
  }

  setRings(bytes: Uint8Array): void {
    this.#write(bytes, this.#rings);
  }

  setEntries(bytes: Uint8Array): void {
    this.#write(bytes, this.#entries);
  }

  #write(bytes: Uint8Array, address: number): void {
    for (let done = 0; done < bytes.length; )
      done += writeSync(this.#memory, bytes, done, bytes.length - done, address + done);
  }
}
