import { closeSync, openSync, readSync } from 'node:fs';
import {
  ELF_HEADER_BYTES,
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  parseElfHeader,
  parseProgramHeaders,
  programHeaderCount,
} from '../system/elf.ts';
import { ArmError } from './errors.ts';

const PROC_KCORE = '/proc/kcore';

/** A run of physical memory in the file; bytes. */
interface Segment {
  readonly physical: number;
  readonly size: number;
  readonly offset: bigint;
}

/**
 * Physical memory of the running kernel as /proc/kcore shows it (fs/proc/kcore.c): all System RAM, what is
 * reserved for a crash kernel included, by the p_paddr of its segments. Needs root, and no lockdown of
 * confidentiality.
 */
export class Kcore implements Disposable {
  readonly #fd: number;
  readonly #segments: readonly Segment[];

  /** @throws an Error with a code, EPERM as a rule, if the kernel does not show its memory */
  constructor(path: string = PROC_KCORE) {
    this.#fd = openSync(path, 'r');
    const header = parseElfHeader(this.#read(0n, ELF_HEADER_BYTES));
    if (header === undefined) throw new ArmError(`${path} is no 64-bit ELF file`);
    const count = programHeaderCount(header, (offset, length) => this.#read(BigInt(offset), length));
    const table = this.#read(BigInt(header.programHeadersOffset), count * PROGRAM_HEADER_BYTES);
    this.#segments = parseProgramHeaders(table)
      // What is not plain memory has all bits set in its physical address.
      .filter(({ type, physical }) => type === PT_LOAD && Number.isSafeInteger(physical))
      .map(({ exactOffset, physical, memoryBytes }) => ({
        offset: exactOffset,
        physical,
        size: memoryBytes,
      }));
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
