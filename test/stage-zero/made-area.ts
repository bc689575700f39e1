import { noteOf, type StageZeroInputs, stageZeroArea, stageZeroBytes } from '../../src/stage-zero/area.ts';
import { checksum } from '../../src/stage-zero/checksum.ts';
import { symbols } from '../../src/stage-zero/code.ts';
import { type ElfNote, parseNotes } from '../../src/system/elf.ts';

const GIB = 2 ** 30;

/** XCR0 with everything up to protection keys. */
const ALL_COMPONENTS = 0x2ffn;

/** Where it lies unless a test says otherwise. */
export const ADDRESS = 0x6a00_0000;
const BOOT_ID = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

/** A machine of four processors, whose boot processor has APIC id 0. */
export function madeInputs(other: Partial<StageZeroInputs> = {}): StageZeroInputs {
  const loaded = other.loaded ?? [
    { address: 0x6b00_0000, bytes: Buffer.from('the kernel, an odd number of bytes') },
    { address: 0x6c00_0000, bytes: Buffer.alloc(4096, 0x5a) },
  ];
  return {
    address: ADDRESS,
    cpus: [0, 1, 2, 5].map((apicId) => ({ apicId, isBoot: apicId === 0 })),
    xsaveBytes: 2816,
    reserved: [{ start: 0x6a00_0000, end: 0x7e00_0000 }],
    segments: loaded.length,
    loaded,
    kernelEntry: 0x6b00_0200,
    bootParams: 0x6d00_0000,
    lowMemory: 0x10000,
    haltText: { physical: 0x0d12_3456, virtual: 0xffff_ffff_8112_3456n },
    fiveLevels: false,
    answerTicks: 8_000_000,
    bootId: BOOT_ID,
    ...other,
  };
}

/** What the memory of the area is after a panic: as it was loaded, until a test changes it. */
export class MadeArea {
  readonly inputs: StageZeroInputs;
  readonly bytes: Buffer;

  constructor(inputs: StageZeroInputs = madeInputs()) {
    this.inputs = inputs;
    this.bytes = Buffer.alloc(stageZeroBytes(inputs));
    stageZeroArea(inputs).copy(this.bytes);
  }

  /** One of the constants, a word. */
  constant(symbol: number): number {
    return Number(this.bytes.readBigUInt64LE(symbols.CONSTANTS + symbol));
  }

  /** The offset that one of the constants, an address, leads to. */
  offset(symbol: number): number {
    return this.constant(symbol) - this.inputs.address;
  }

  /** The notes that the core header would have. */
  get notes(): ElfNote[] {
    const { address, bytes } = noteOf(0);
    return parseNotes(this.bytes.subarray(address, address + bytes));
  }

  /** The offset of a processor's slot. */
  slot(apicId: number): number {
    const index = this.inputs.cpus.findIndex((cpu) => cpu.apicId === apicId);
    const entry = this.offset(symbols.TABLE) + index * symbols.CPU_ENTRY_BYTES;
    return Number(this.bytes.readBigUInt64LE(entry + symbols.CPU_SLOT)) - this.inputs.address;
  }

  /** What `save` of stage-zero.S writes. */
  save(apicId: number, xsave: Uint8Array, { xcr0 = ALL_COMPONENTS, kernelGsBase = 0n } = {}): void {
    const slot = this.slot(apicId);
    this.bytes.writeUInt32LE(apicId, slot + symbols.SLOT_APIC_ID);
    this.bytes.writeBigUInt64LE(BigInt(xsave.length), slot + symbols.SLOT_BYTES);
    this.bytes.set(xsave, slot + symbols.SLOT_XSAVE);
    this.bytes.writeBigUInt64LE(xcr0, slot + symbols.SLOT_XCR0);
    this.bytes.writeBigUInt64LE(kernelGsBase, slot + symbols.SLOT_KERNEL_GS);
    const summed = this.bytes.subarray(slot + symbols.SLOT_SUMMED, slot + symbols.SLOT_XSAVE + xsave.length);
    checksum(summed).copy(this.bytes, slot + symbols.SLOT_SUM);
    this.bytes.writeUInt32LE(symbols.SAVED, slot + symbols.SLOT_STATUS);
  }

  /** Writes to the page of what changes. */
  setState(symbol: number, value: number): void {
    this.bytes.writeUInt32LE(value, this.offset(symbols.STATE) + symbol);
  }

  /** What it leaves when all is well. */
  finish(): void {
    this.setState(symbols.STATE_PHASE, symbols.PHASE_DONE);
    this.setState(symbols.STATE_BEGIN, 1000);
    this.setState(symbols.STATE_END, 5000);
  }

  /** Physical memory that has the area and nothing else. */
  read = (physical: number, length: number): Uint8Array => {
    const at = physical - this.inputs.address;
    if (at < 0 || at + length > this.bytes.length) throw new RangeError('not in memory');
    return this.bytes.subarray(at, at + length);
  };
}

/** Addresses for machines with more memory. */
export const HIGH_ADDRESS = 21 * GIB;
