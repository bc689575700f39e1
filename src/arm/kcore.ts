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

/** Documentation/arch/x86/x86_64/mm.rst, with five levels of page tables as well. */
const KERNEL_HALF = 0xff00_0000_0000_0000n;
const KERNEL_TEXT_MAP = 0xffff_ffff_8000_0000n;
/** Of the direct map's beginning, random as it is (PUD_SIZE: arch/x86/mm/kaslr.c). */
const DIRECT_MAP_ALIGNMENT = 0x4000_0000n;

/** A run of physical memory in the file; bytes. */
interface Segment {
  readonly virtual: bigint;
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
      .map(({ exactOffset, virtual, physical, memoryBytes }) => ({
        virtual,
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

  /**
   * page_offset_base: what the virtual addresses of all RAM have more than the physical ones. The other
   * segment with a physical address is the kernel's text.
   * @returns undefined if they do not agree, or if it is none of the addresses where the direct map may begin
   */
  get directMap(): bigint | undefined {
    const bases = this.#segments
      .filter(({ virtual }) => virtual < KERNEL_TEXT_MAP)
      .map(({ virtual, physical }) => virtual - BigInt(physical));
    const [base, ...others] = new Set(bases);
    if (base === undefined || others.length > 0) return undefined;
    return base >= KERNEL_HALF && base % DIRECT_MAP_ALIGNMENT === 0n ? base : undefined;
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
