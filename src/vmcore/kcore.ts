import { closeSync, openSync, readSync } from 'node:fs';
import {
  ELF_HEADER_BYTES,
  type ElfNote,
  PROGRAM_HEADER_BYTES,
  PT_LOAD,
  PT_NOTE,
  parseElfHeader,
  parseNotes,
  parseProgramHeaders,
  programHeaderCount,
} from '../system/elf.ts';
import { FormatError } from './errors.ts';
import type { PhysicalRange } from './physical.ts';

export const PROC_KCORE = '/proc/kcore';

/** Documentation/arch/x86/x86_64/mm.rst, with five levels of page tables as well. */
const KERNEL_HALF = 0xff00_0000_0000_0000n;
const KERNEL_TEXT_MAP = 0xffff_ffff_8000_0000n;
/** Of the direct map's beginning, random as it is (PUD_SIZE: arch/x86/mm/kaslr.c). */
const DIRECT_MAP_ALIGNMENT = 0x4000_0000n;
/** The kernel's own notes take some pages. */
const MAX_NOTE_BYTES = 1 << 20;

/** A run of physical memory in the file; bytes. */
export interface KcoreSegment extends PhysicalRange {
  readonly virtual: bigint;
  /** Where it is in the file; beyond 2^53 with five levels of page tables. */
  readonly fileOffset: bigint;
}

/**
 * Physical memory of the running kernel as /proc/kcore shows it (fs/proc/kcore.c): all System RAM, what is
 * reserved for a crash kernel included, by the p_paddr of its segments. Needs root, and no lockdown of
 * confidentiality. The file cannot be mapped.
 */
export class Kcore implements Disposable {
  readonly path: string;
  /** ELF machine of the header: EM_*. */
  readonly machine: number;
  readonly segments: readonly KcoreSegment[];
  readonly notes: readonly ElfNote[];
  readonly #fd: number;

  /**
   * @throws an Error with a code, EPERM as a rule, if the kernel does not show its memory; a FormatError if
   *   it is no ELF file
   */
  constructor(path: string = PROC_KCORE) {
    this.path = path;
    this.#fd = openSync(path, 'r');
    try {
      const header = parseElfHeader(this.#read(0n, ELF_HEADER_BYTES));
      if (header === undefined) throw new FormatError(path, 'is no 64-bit ELF file');
      const count = programHeaderCount(header, (offset, length) => this.#read(BigInt(offset), length));
      const table = this.#read(BigInt(header.programHeadersOffset), count * PROGRAM_HEADER_BYTES);
      const headers = parseProgramHeaders(table);
      this.machine = header.machine;
      this.notes = headers
        .filter(({ type }) => type === PT_NOTE)
        .flatMap(({ exactOffset, fileBytes }) =>
          parseNotes(this.#read(exactOffset, Math.min(fileBytes, MAX_NOTE_BYTES))),
        );
      this.segments = headers
        // What is not plain memory has all bits set in its physical address.
        .filter(({ type, physical }) => type === PT_LOAD && Number.isSafeInteger(physical))
        .map(({ exactOffset, virtual, physical, memoryBytes }) => ({
          ...{ virtual, physical },
          fileOffset: exactOffset,
          length: memoryBytes,
        }));
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  #read(offset: bigint, length: number): Buffer {
    const buffer = Buffer.alloc(length);
    return buffer.subarray(0, this.readInto(buffer, offset));
  }

  /**
   * Fills bytes with those of the file from `offset` on.
   * @returns how many there were
   * @throws an Error with a code if the kernel does not let them be read
   */
  readInto(bytes: Uint8Array, offset: bigint): number {
    let done = 0;
    for (let got = -1; got !== 0 && done < bytes.length; done += got)
      got = readSync(this.#fd, bytes, done, bytes.length - done, offset + BigInt(done));
    return done;
  }

  /** Text of the VMCOREINFO note, which kernels have here since 4.19; undefined if there is none. */
  get vmcoreinfo(): string | undefined {
    const note = this.notes.findLast(({ name }) => name === 'VMCOREINFO');
    return note?.description.toString('latin1').replace(/\0.*$/s, '');
  }

  /**
   * page_offset_base: what the virtual addresses of all RAM have more than the physical ones. The other
   * segment with a physical address is the kernel's text.
   * @returns undefined if they do not agree, or if it is none of the addresses where the direct map may begin
   */
  get directMap(): bigint | undefined {
    const bases = this.segments
      .filter(({ virtual }) => virtual < KERNEL_TEXT_MAP)
      .map(({ virtual, physical }) => virtual - BigInt(physical));
    const [base, ...others] = new Set(bases);
    if (base === undefined || others.length > 0) return undefined;
    return base >= KERNEL_HALF && base % DIRECT_MAP_ALIGNMENT === 0n ? base : undefined;
  }

  /** Bytes from a physical address on; fewer where the file has fewer. */
  readPhysical(address: number, length: number): Buffer {
    const segment = this.segments.find(
      ({ physical, length: size }) => physical <= address && address < physical + size,
    );
    if (segment === undefined) return Buffer.alloc(0);
    const inside = address - segment.physical;
    return this.#read(segment.fileOffset + BigInt(inside), Math.min(length, segment.length - inside));
  }

  close(): void {
    closeSync(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
