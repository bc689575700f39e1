import { closeSync, openSync, readSync } from 'node:fs';

const PROC_KCORE = '/proc/kcore';
const PT_LOAD = 1;
const ELF_HEADER = 64;
const PROGRAM_HEADER = 56;

/** A run of physical memory in the file; bytes. */
interface Segment {
  readonly physical: number;
  readonly size: number;
  readonly offset: bigint;
}

/**
 * Physical memory of the running kernel as /proc/kcore shows it (fs/proc/kcore.c): all System RAM, what is reserved for a crash kernel included, by the
 * p_paddr of its segments. Needs root, and no lockdown of confidentiality.
 */
export class Kcore implements Disposable {
  readonly #fd: number;
  readonly #segments: readonly Segment[];

  /** @throws an Error with a code, EPERM as a rule, if the kernel does not show its memory */
  constructor(path: string = PROC_KCORE) {
    this.#fd = openSync(path, 'r');
    const header = this.#read(0n, ELF_HEADER);
    const count = header.readUInt16LE(56);
    const table = this.#read(header.readBigUInt64LE(32), count * PROGRAM_HEADER);
    this.#segments = Array.from({ length: count }, (_, index) => index * PROGRAM_HEADER)
      .filter((at) => table.readUInt32LE(at) === PT_LOAD)
      .map((at) => ({
        offset: table.readBigUInt64LE(at + 8),
        physical: Number(table.readBigUInt64LE(at + 24)),
        size: Number(table.readBigUInt64LE(at + 40)),
      }))
      // What is not plain memory has all bits set there.
      .filter(({ physical }) => Number.isSafeInteger(physical));
  }

  #read(offset: bigint, length: number): Buffer {
    const buffer = Buffer.alloc(length);
    let done = 0;
    for (let got = -1; got !== 0 && done < length; done += got)
      got = readSync(this.#fd, buffer, done, length - done, offset + BigInt(done));
    return buffer.subarray(0, done);
  }

  /** Bytes from a physical address on; fewer where the file has fewer. */
  readPhysical(address: number, length: number): Buffer {
    const segment = this.#segments.find(
      ({ physical, size }) => physical <= address && address < physical + size,
    );
    if (segment === undefined) return Buffer.alloc(0);
    const inside = address - segment.physical;
    return this.#read(segment.offset + BigInt(inside), Math.min(length, segment.size - inside));
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}
