import { PAGE_SIZE } from '../system/page.ts';
import type { Range } from '../system/range.ts';
import { checksum } from './checksum.ts';
import { areaCode, lowCode, symbols } from './code.ts';
import { lowTables, type PageTables, pageTables, pageTablesBytes } from './page-tables.ts';

/** A processor whose registers are to be saved. */
export interface StageZeroCpu {
  readonly apicId: number;
  /** The one that the firmware booted: INIT would reset the machine. */
  readonly isBoot: boolean;
}

/** The instruction that halts the boot processor when another one panics. */
export interface HaltText {
  /** Physical address of HLT. */
  readonly physical: number;
  /** Its address for the kernel. */
  readonly virtual: bigint;
}

/** A part of what was loaded, to be checked before the crash kernel is entered. */
export interface LoadedSegment {
  /** Physical. */
  readonly address: number;
  readonly bytes: Uint8Array;
}

/** What the size of the area depends on. */
export interface StageZeroNeeds {
  readonly cpus: readonly StageZeroCpu[];
  /** Bytes that XSAVE takes at most. */
  readonly xsaveBytes: number;
  /** Memory that is reserved for the crash kernel. */
  readonly reserved: readonly Range[];
  /** How many segments are to be checked. */
  readonly segments: number;
}

/** All that stage zero is told. */
export interface StageZeroInputs extends StageZeroNeeds {
  /** Physical address of the area: a multiple of the page size. */
  readonly address: number;
  readonly loaded: readonly LoadedSegment[];
  /** Physical addresses of the crash kernel's 64-bit entry and of its boot_params. */
  readonly kernelEntry: number;
  readonly bootParams: number;
  /** Physical address below 1 MiB of LOW_PAGES pages of RAM; undefined: no other CPU is started. */
  readonly lowMemory: number | undefined;
  /** Where the boot processor waits, if a system management interrupt may call it from there. */
  readonly haltText: HaltText | undefined;
  /** The page tables of the kernel have five levels. */
  readonly fiveLevels: boolean;
  /** Ticks of the time stamp counter that the others have to answer in. */
  readonly answerTicks: number;
  /** 16 bytes: the id of this boot. */
  readonly bootId: Uint8Array;
}

/** Pages below 1 MiB that are used for a moment: code, and three of page tables. */
export const LOW_PAGES = 4;

/** 'OTHWZERO' as the machine stores it. */
export const MAGIC = Buffer.from('OTHWZERO', 'latin1');

/** Those that have not answered by then are called once more: a share of the time that they have. */
const REPEAT_SHARE = 1 / 8;

const GATES = 32;
const GATE_BYTES = 16;
/** Each gate's code begins at a multiple of this (stage-zero.S). */
const GATE_CODE_BYTES = 8;
/** Null, null, 64-bit code, data (SDM 3, 3.4.5). */
const DESCRIPTORS = [0n, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn];

/** More than the instructions take that lead the boot processor away; a multiple of 64. */
const DETOUR_ROOM = 64;

const pages = (bytes: number): number => Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;

/** Offsets in the area of what has no fixed place. */
interface AreaLayout {
  readonly cpuTable: number;
  readonly digests: number;
  readonly gdt: number;
  readonly idt: number;
  readonly parkedIdt: number;
  readonly tables: number;
  readonly low: number;
  /** What is before never changes. */
  readonly sealed: number;
  readonly state: number;
  readonly stackEnd: number;
  readonly parkedStackEnd: number;
  readonly lowSaved: number;
  readonly textSaved: number;
  readonly slots: number;
  readonly slotBytes: number;
  readonly bytes: number;
}

function layOut({ cpus, xsaveBytes, reserved, segments }: StageZeroNeeds): AreaLayout {
  const cpuTable = symbols.FALLBACK + PAGE_SIZE;
  const digests = cpuTable + cpus.length * symbols.CPU_ENTRY_BYTES;
  const gdt = Math.ceil((digests + segments * symbols.DIGEST_BYTES) / 16) * 16;
  const idt = gdt + DESCRIPTORS.length * 8;
  const parkedIdt = idt + GATES * GATE_BYTES;
  const tables = pages(parkedIdt + GATES * GATE_BYTES);
  const low = tables + pageTablesBytes([...reserved.map(({ start, end }) => end - start), DETOUR_ROOM]);
  const sealed = low + LOW_PAGES * PAGE_SIZE;
  const state = sealed;
  const stackEnd = state + 2 * PAGE_SIZE;
  const parkedStackEnd = stackEnd + PAGE_SIZE;
  const lowSaved = parkedStackEnd;
  const textSaved = lowSaved + LOW_PAGES * PAGE_SIZE;
  const slots = textSaved + DETOUR_ROOM;
  const slotBytes = Math.ceil((symbols.SLOT_XSAVE + xsaveBytes) / 64) * 64;
  const bytes = pages(slots + cpus.length * slotBytes);
  return {
    ...{ cpuTable, digests, gdt, idt, parkedIdt, tables, low, sealed, state, stackEnd, parkedStackEnd },
    ...{ lowSaved, textSaved, slots, slotBytes, bytes },
  };
}

/** Bytes of memory that the area takes. */
export function stageZeroBytes(needs: StageZeroNeeds): number {
  return layOut(needs).bytes;
}

/** An area that is being written: what it is told, where its parts lie, and its page tables. */
interface Draft {
  readonly area: Buffer;
  readonly inputs: StageZeroInputs;
  readonly layout: AreaLayout;
  readonly tables: PageTables;
}

/**
 * The area as it is loaded; what follows up to `stageZeroBytes` is zeros. It is entered at its beginning.
 */
export function stageZeroArea(inputs: StageZeroInputs): Buffer {
  const { address, lowMemory } = inputs;
  if (inputs.loaded.length !== inputs.segments)
    throw new RangeError('another number of segments than was told');
  if (areaCode.length > symbols.CONSTANTS || lowCode.length > PAGE_SIZE)
    throw new RangeError('the code does not fit');
  const layout = layOut(inputs);
  const area = Buffer.alloc(layout.state + PAGE_SIZE);
  const tables = tablesOf(inputs, layout);
  const draft: Draft = { area, inputs, layout, tables };
  areaCode.copy(area);
  tables.bytes.copy(area, layout.tables);
  putConstants(draft);
  descriptorTables(area, address, layout);
  putHaltText(draft);
  putProcessors(draft);
  putDigests(draft);
  if (lowMemory !== undefined) lowContent(lowMemory, tables.level4, address).copy(area, layout.low);
  putFallback(draft);
  // Last: it is over all that never changes.
  checksum(area.subarray(0, layout.sealed)).copy(area, layout.state + symbols.SEAL_OFFSET);
  return area;
}

/** The kernel's text may lie above what is mapped anyway. */
function tablesOf({ address, reserved, haltText }: StageZeroInputs, layout: AreaLayout): PageTables {
  if (haltText === undefined) return pageTables(address + layout.tables, reserved, undefined);
  const text = { start: haltText.physical, end: haltText.physical + DETOUR_ROOM };
  return pageTables(address + layout.tables, [...reserved, text], { ...haltText, bytes: DETOUR_ROOM });
}

function put(area: Buffer, offset: number, value: number): void {
  area.writeBigUInt64LE(BigInt(value), offset);
}

function putConstant(area: Buffer, symbol: number, value: number): void {
  put(area, symbols.CONSTANTS + symbol, value);
}

/** What the code reads of how it was loaded. */
function putConstants({ area, inputs, layout, tables }: Draft): void {
  const { address, cpus, loaded, lowMemory, answerTicks } = inputs;
  const constant = (symbol: number, value: number): void => putConstant(area, symbol, value);
  MAGIC.copy(area, symbols.CONSTANTS + symbols.MAGIC);
  area.set(inputs.bootId.subarray(0, 16), symbols.CONSTANTS + symbols.BOOT_ID);
  constant(symbols.SEALED_BYTES, layout.sealed);
  constant(symbols.SEAL, address + layout.state + symbols.SEAL_OFFSET);
  constant(symbols.CR3_LEVEL4, tables.level4);
  constant(symbols.CR3_LEVEL5, tables.level5);
  constant(symbols.TABLE, address + layout.cpuTable);
  constant(symbols.CPUS, cpus.length);
  constant(symbols.DIGESTS, address + layout.digests);
  constant(symbols.DIGEST_COUNT, loaded.length);
  constant(symbols.LOW, lowMemory ?? 0);
  constant(symbols.LOW_BYTES, lowMemory === undefined ? 0 : LOW_PAGES * PAGE_SIZE);
  constant(symbols.LOW_CONTENT, address + layout.low);
  constant(symbols.LOW_SAVED, address + layout.lowSaved);
  constant(symbols.STATE, address + layout.state);
  constant(symbols.ANSWER_TICKS, answerTicks);
  constant(symbols.REPEAT_TICKS, Math.floor(answerTicks * REPEAT_SHARE));
  constant(symbols.STACK, address + layout.stackEnd);
  constant(symbols.PARKED_STACK, address + layout.parkedStackEnd);
  constant(symbols.SLOT_ROOM, layout.slotBytes - symbols.SLOT_XSAVE);
  constant(symbols.AREA_BYTES, layout.bytes);
  note(address, layout.bytes).copy(area, symbols.CONSTANTS + symbols.NOTE);
}

/** How the boot processor is led away from where it is halted. */
function putHaltText({ area, inputs, layout, tables }: Draft): void {
  const { address, haltText, fiveLevels } = inputs;
  if (haltText === undefined) return;
  const content = detour(fiveLevels ? tables.level5 : tables.level4, address);
  content.copy(area, symbols.DETOUR);
  putConstant(area, symbols.TEXT, haltText.physical);
  putConstant(area, symbols.TEXT_BYTES, content.length);
  putConstant(area, symbols.TEXT_CONTENT, address + symbols.DETOUR);
  putConstant(area, symbols.TEXT_SAVED, address + layout.textSaved);
}

/** Whose registers are saved, how each is called, and where to. */
function putProcessors({ area, inputs: { address, cpus }, layout }: Draft): void {
  for (const [i, { apicId, isBoot }] of cpus.entries()) {
    const entry = layout.cpuTable + i * symbols.CPU_ENTRY_BYTES;
    area.writeUInt32LE(apicId, entry + symbols.CPU_APIC_ID);
    area.writeUInt32LE(isBoot ? symbols.BY_SMI : symbols.BY_INIT, entry + symbols.CPU_START);
    put(area, entry + symbols.CPU_SLOT, address + layout.slots + i * layout.slotBytes);
  }
}

/** What is compared before the crash kernel is entered. */
function putDigests({ area, inputs: { loaded }, layout }: Draft): void {
  for (const [i, segment] of loaded.entries()) {
    const entry = layout.digests + i * symbols.DIGEST_BYTES;
    put(area, entry, segment.address);
    put(area, entry + 8, Math.ceil(segment.bytes.length / 8) * 8);
    checksum(segment.bytes).copy(area, entry + 16);
  }
}

/** The record that leads to the crash kernel although the rest is damaged. */
function putFallback({ area, inputs: { kernelEntry, bootParams } }: Draft): void {
  put(area, symbols.FALLBACK + symbols.FALLBACK_ENTRY, kernelEntry);
  put(area, symbols.FALLBACK + symbols.FALLBACK_PARAMS, bootParams);
  const record = area.subarray(symbols.FALLBACK, symbols.FALLBACK + symbols.FALLBACK_SUM);
  checksum(record).copy(area, symbols.FALLBACK + symbols.FALLBACK_SUM);
}

/** Where the ELF note lies that leads to the area, and how long it is: for a PT_NOTE of the elfcorehdr. */
export function noteOf(address: number): { readonly address: number; readonly bytes: number } {
  return { address: address + symbols.CONSTANTS + symbols.NOTE, bytes: symbols.NOTE_BYTES };
}

/** Name and type of the ELF note. Its description: u64 physical address of the area, u64 its size. */
export const NOTE_NAME = 'Otherworld';
export const NOTE_TYPE = 1;

function note(address: number, bytes: number): Buffer {
  const name = Buffer.from(`${NOTE_NAME}\0`, 'latin1');
  const header = Buffer.alloc(12);
  header.writeUInt32LE(name.length, 0);
  header.writeUInt32LE(16, 4);
  header.writeUInt32LE(NOTE_TYPE, 8);
  const description = Buffer.alloc(16);
  description.writeBigUInt64LE(BigInt(address), 0);
  description.writeBigUInt64LE(BigInt(bytes), 8);
  return Buffer.concat([header, name, Buffer.alloc(-name.length & 3), description]);
}

/** The GDT, the IDT of the dying CPU with a gate for each exception, and that of the parked ones. */
function descriptorTables(area: Buffer, address: number, layout: AreaLayout): void {
  for (const [i, descriptor] of DESCRIPTORS.entries()) area.writeBigUInt64LE(descriptor, layout.gdt + i * 8);
  const pointer = (symbol: number, offset: number, bytes: number): void => {
    area.writeUInt16LE(bytes - 1, symbols.CONSTANTS + symbol);
    area.writeBigUInt64LE(BigInt(address + offset), symbols.CONSTANTS + symbol + 2);
  };
  pointer(symbols.GDT_POINTER, layout.gdt, DESCRIPTORS.length * 8);
  pointer(symbols.IDT_POINTER, layout.idt, GATES * GATE_BYTES);
  pointer(symbols.PARKED_IDT, layout.parkedIdt, GATES * GATE_BYTES);
  for (let vector = 0; vector < GATES; vector++) {
    const code = address + symbols.gates + vector * GATE_CODE_BYTES;
    gate(code).copy(area, layout.idt + vector * GATE_BYTES);
    gate(address + symbols.parked).copy(area, layout.parkedIdt + vector * GATE_BYTES);
  }
}

/** An interrupt gate of 64-bit mode (SDM 3, 6.14.1): present, for ring 0, on the stack that there is. */
function gate(code: number): Buffer {
  const bytes = Buffer.alloc(GATE_BYTES);
  bytes.writeUInt16LE(code % 2 ** 16, 0);
  bytes.writeUInt16LE(symbols.CODE_SELECTOR, 2);
  bytes.writeUInt16LE(0x8e00, 4);
  bytes.writeUInt16LE(Math.floor(code / 2 ** 16) % 2 ** 16, 6);
  bytes.writeUInt32LE(Math.floor(code / 2 ** 32), 8);
  return bytes;
}

/** What lies in the place of the kernel's HLT while the boot processor is called. */
function detour(tables: number, area: number): Buffer {
  const code = Buffer.from(areaCode.subarray(symbols.detour, symbols.detour_end));
  code.writeBigUInt64LE(BigInt(tables), symbols.detour_tables - symbols.detour);
  code.writeBigUInt64LE(BigInt(area + symbols.halted), symbols.detour_halted - symbols.detour);
  return code;
}

/** What lies in the pages below 1 MiB while CPUs are started. */
function lowContent(page: number, level4: number, area: number): Buffer {
  const content = Buffer.alloc(LOW_PAGES * PAGE_SIZE);
  lowCode.copy(content);
  content.writeUInt32LE(page + symbols.low_long, symbols.low_jump);
  content.writeUInt32LE(page + PAGE_SIZE, symbols.low_cr3);
  content.writeBigUInt64LE(BigInt(level4), symbols.low_tables);
  content.writeBigUInt64LE(BigInt(area + symbols.started), symbols.low_started);
  content.writeUInt32LE(page + symbols.low_gdt, symbols.low_gdt_pointer + 2);
  lowTables(page + PAGE_SIZE).copy(content, PAGE_SIZE);
  return content;
}
