import type { ElfNote } from '../system/elf.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { MAGIC, NOTE_NAME, NOTE_TYPE } from './area.ts';
import { checksum } from './checksum.ts';
import { symbols } from './code.ts';

/** What a processor had when stage zero looked at it. */
export interface SavedCpu {
  readonly apicId: number;
  /** Components that XSAVE saves: XCR0. */
  readonly xcr0: bigint;
  /** IA32_KERNEL_GS_BASE: in the kernel, the user's GS base. */
  readonly kernelGsBase: bigint;
  /** The area of XSAVE, in the standard format. */
  readonly xsave: Buffer;
}

/** What stage zero left in its area. */
export interface StageZeroResult {
  /** How far it came; `stopped by an exception` names what follows. */
  readonly phase: 'not entered' | 'entered' | 'starting the others' | 'done' | 'stopped by an exception';
  /** The exception, if there was one. */
  readonly exception: { readonly vector: number; readonly ip: bigint } | undefined;
  /** Ticks of the time stamp counter that it took; undefined if it did not come to its end. */
  readonly ticks: number | undefined;
  /** Processors that were called and did not answer. */
  readonly missing: number;
  /** By APIC id. */
  readonly cpus: ReadonlyMap<number, SavedCpu>;
  /** 16 bytes: the id of the boot that it was loaded in; undefined if it cannot be read. */
  readonly bootId: Buffer | undefined;
  /** What was wrong with what it left: a sentence for each. */
  readonly problems: readonly string[];
}

/** Physical memory of the dead machine. */
export interface AreaMemory {
  /** @throws if it is not there */
  read(physical: number, length: number): Uint8Array;
}

const PHASES = [
  'not entered',
  'entered',
  'starting the others',
  'done',
  'stopped by an exception',
] as const satisfies readonly StageZeroResult['phase'][];

/** No area is larger: a damaged note must not lead to reading all memory. */
const MOST_BYTES = 2 ** 26;
/** With the page of what changes, which is behind everything that has a fixed place. */
const LEAST_BYTES = symbols.FALLBACK + 2 * PAGE_SIZE;

/** What it borrows: the mark that it is taken, and what it is for the dead kernel. */
const BORROWED = [
  [symbols.STATE_LOW_TAKEN, 'what the dead kernel had in some pages below 1 MiB'],
  [symbols.STATE_TEXT_TAKEN, "a piece of the dead kernel's text (native_halt)"],
] as const;

/**
 * What stage zero saved, found by its note.
 * @returns undefined if the dump has no such note: there was no stage zero
 */
export function savedState(notes: readonly ElfNote[], memory: AreaMemory): StageZeroResult | undefined {
  const note = notes.find(({ name, type }) => name === NOTE_NAME && type === NOTE_TYPE);
  if (note === undefined || note.description.length < 16) return undefined;
  const address = Number(note.description.readBigUInt64LE(0));
  const bytes = Number(note.description.readBigUInt64LE(8));
  if (!Number.isSafeInteger(address) || bytes < LEAST_BYTES || bytes > MOST_BYTES)
    return nothingSaved(`its note has ${bytes} bytes at 0x${address.toString(16)}`);
  return readArea(Buffer.from(memory.read(address, bytes)), address);
}

/** What there is if the area cannot be read. */
export function nothingSaved(problem: string): StageZeroResult {
  return {
    ...{ phase: 'not entered', exception: undefined, ticks: undefined, missing: 0, cpus: new Map() },
    bootId: undefined,
    problems: [`what stage zero saved cannot be read: ${problem}`],
  };
}

function readArea(area: Buffer, address: number): StageZeroResult {
  const constant = (symbol: number): number => Number(area.readBigUInt64LE(symbols.CONSTANTS + symbol));
  const magic = area.subarray(symbols.CONSTANTS, symbols.CONSTANTS + MAGIC.length);
  if (!magic.equals(MAGIC)) return nothingSaved('there is no such area where its note says');
  const sealed = constant(symbols.SEALED_BYTES);
  const seal = constant(symbols.SEAL) - address;
  const isInside = (offset: number, length: number): boolean =>
    Number.isSafeInteger(offset) && offset >= 0 && offset + length <= area.length;
  if (!isInside(0, sealed) || !isInside(seal, 8)) return nothingSaved('its constants are damaged');
  if (!checksum(area.subarray(0, sealed)).equals(area.subarray(seal, seal + 8)))
    return nothingSaved('it was overwritten before the panic, and did nothing');
  const state = constant(symbols.STATE) - address;
  const [table, count] = [constant(symbols.TABLE) - address, constant(symbols.CPUS)];
  if (!isInside(state, PAGE_SIZE) || !isInside(table, count * symbols.CPU_ENTRY_BYTES))
    return nothingSaved('it is longer than its note says');
  const phase = PHASES[area.readUInt32LE(state + symbols.STATE_PHASE)] ?? 'not entered';
  const begin = area.readBigUInt64LE(state + symbols.STATE_BEGIN);
  const end = area.readBigUInt64LE(state + symbols.STATE_END);
  const cpus = new Map<number, SavedCpu>();
  const problems: string[] = [];
  const room = constant(symbols.SLOT_ROOM);
  for (let i = 0; i < count; i++) {
    const slot =
      Number(area.readBigUInt64LE(table + i * symbols.CPU_ENTRY_BYTES + symbols.CPU_SLOT)) - address;
    const apicId = area.readUInt32LE(table + i * symbols.CPU_ENTRY_BYTES + symbols.CPU_APIC_ID);
    if (!isInside(slot, symbols.SLOT_XSAVE + room)) return nothingSaved('it is longer than its note says');
    if (area.readUInt32LE(slot + symbols.SLOT_STATUS) !== symbols.SAVED) continue;
    const saved = readSlot(area, slot, apicId, room);
    if (typeof saved === 'string') problems.push(saved);
    else cpus.set(apicId, saved);
  }
  for (const [mark, what] of BORROWED)
    if (area.readUInt32LE(state + mark) !== 0) problems.push(`${what} was not put back`);
  return {
    phase,
    exception:
      phase === 'stopped by an exception'
        ? {
            vector: area.readUInt32LE(state + symbols.STATE_VECTOR),
            ip: area.readBigUInt64LE(state + symbols.STATE_IP),
          }
        : undefined,
    ticks: end > begin ? Number(end - begin) : undefined,
    missing: area.readUInt32LE(state + symbols.STATE_MISSING),
    cpus,
    bootId: area.subarray(symbols.CONSTANTS + symbols.BOOT_ID, symbols.CONSTANTS + symbols.BOOT_ID + 16),
    problems,
  };
}

/** Which components the area of XSAVE has: some of XCR0's (SDM 1, 13.4.2). */
const XSTATE_BV_AT = 512;

/** @returns a sentence if what is there cannot be this processor's */
function readSlot(area: Buffer, slot: number, apicId: number, room: number): SavedCpu | string {
  const bytes = Number(area.readBigUInt64LE(slot + symbols.SLOT_BYTES));
  const damaged = `what the processor with APIC id ${apicId} saved is damaged`;
  if (bytes > room || area.readUInt32LE(slot + symbols.SLOT_APIC_ID) !== apicId) return damaged;
  const xsave = area.subarray(slot + symbols.SLOT_XSAVE, slot + symbols.SLOT_XSAVE + bytes);
  const sum = area.subarray(slot + symbols.SLOT_SUM, slot + symbols.SLOT_SUM + 8);
  const summed = area.subarray(slot + symbols.SLOT_SUMMED, slot + symbols.SLOT_XSAVE + bytes);
  if (!checksum(summed).equals(sum)) return damaged;
  const xcr0 = area.readBigUInt64LE(slot + symbols.SLOT_XCR0);
  if (bytes < XSTATE_BV_AT + 8 || (xsave.readBigUInt64LE(XSTATE_BV_AT) & ~xcr0) !== 0n) return damaged;
  return {
    apicId,
    xcr0,
    kernelGsBase: area.readBigUInt64LE(slot + symbols.SLOT_KERNEL_GS),
    xsave,
  };
}
