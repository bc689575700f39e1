import { constants } from 'node:os';
import { crc32 } from 'node:zlib';
import { PROT_EXEC, PROT_READ, PROT_WRITE } from '../system/abi.ts';
import { PAGE_SIZE } from '../system/page.ts';
import type { Vma } from './memory.ts';
import type { Sigaction } from './process.ts';

/**
 * Name of the memory file that holds a record (memfd_create(2)); the kernel's dentry is `memfd:otherworld`.
 */
export const recordFileName = 'otherworld';

/** Bytes of a record's mapping (sdk/c/otherworld.h, OTHERWORLD_SIZE). */
export const recordSizeBytes = 16384;

/** Bytes from the start of the record to the end of its checksum. */
export const recordHeaderBytes = 160;

/** Smallest stack for a procedure: a signal frame with 11 KiB of vector state, and room to work. */
const smallestStackBytes = 32768;

/**
 * The entry point runs in the first thread, on its own stack, and returns to the restorer. Addresses of the
 * user.
 */
export interface DeliveryByCall {
  readonly kind: 'call';
  readonly entry: number;
  readonly argument: bigint;
  readonly stackBase: number;
  readonly stackSizeBytes: number;
  readonly restorer: number;
}

/** A signal is queued for the process. */
export interface DeliveryBySignal {
  readonly kind: 'signal';
  readonly signal: number;
}

/** A record that passed every check. */
export interface CrashProcedure {
  /** User address of the record. */
  readonly address: number;
  readonly delivery: DeliveryByCall | DeliveryBySignal;
  /** Undefined: as configured on the machine. */
  readonly timeLimitMilliseconds: number | undefined;
  /** Incidents that the process has outlived before this one. */
  readonly resurrections: number;
}

/** What a record turned out to be. */
export type ParsedRecord =
  | { readonly valid: true; readonly procedure: CrashProcedure }
  | { readonly valid: false; readonly reason: string };

/** The record of one process, found in a dead kernel's memory. */
export type CapturedProcedure = { readonly pid: number } & (
  | {
      readonly valid: true;
      readonly procedure: CrashProcedure;
      /** The record's first bytes, at least 256. */
      readonly header: Uint8Array;
      /** With delivery by call: where the first thread's XSAVE components belong, by component number. */
      readonly xstateOffsets: readonly number[];
    }
  /** Completes the sentence `The record ...`. */
  | { readonly valid: false; readonly reason: string }
);

/** What a process's memory is checked against; a `Process` of the model has all of it. */
export interface RecordOwner {
  readonly pid: number;
  readonly vmas: readonly Pick<Vma, 'start' | 'end' | 'prot'>[];
  /** Index 0 is signal 1. */
  readonly sigactions: readonly Pick<Sigaction, 'handler'>[];
}

const recordMagic = 0x444c52575248544fn; // "OTHRWRLD"
const recordVersion = 1;

/** Offsets in the record, in bytes, under the names of sdk/c/otherworld.h. */
export const recordLayout = {
  version: 8,
  size: 12,
  delivery: 16,
  flags: 20,
  signal: 24,
  time_limit_milliseconds: 28,
  entry: 32,
  argument: 40,
  stack_base: 48,
  stack_size: 56,
  restorer: 64,
  pid: 72,
  crc: 156,
  state: 256,
  resurrections: 260,
  panic_time_nanoseconds: 264,
  frame: 272,
  item_count: 280,
  items_omitted: 284,
  exit_status: 288,
  id: 296,
  interrupted_syscall: 360,
  restrictions: 392,
  items: 512,
  /** In an item. */
  what: 16,
} as const;

/**
 * Exit status of a process that was brought back for its procedure alone, and whose procedure went on:
 * EX_TEMPFAIL of sysexits(3), which says that a new start may do.
 */
export const notContinuedStatus = 75;

const deliveryNumber = { call: 1, signal: 2 } as const;
const { SIGKILL, SIGSTOP } = constants.signals;
const lastSignal = 64;

/**
 * Reads and checks the record of a crash procedure. Nothing in it is believed: it comes from a dead kernel's
 * memory.
 *
 * @param bytes the record from its start, at least up to the end of the count of resurrections (264 bytes)
 * @param address user address of the record
 * @returns the procedure, or the reason why the record is ignored; never throws for what `bytes` hold
 */
export function parseCrashProcedure(bytes: Uint8Array, address: number, owner: RecordOwner): ParsedRecord {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const reason =
    bytes.length < recordLayout.panic_time_nanoseconds ? 'is cut off' : headerFault(view, bytes, owner);
  if (reason !== undefined) return { valid: false, reason };
  const delivery = readDelivery(view, address, owner);
  if (typeof delivery === 'string') return { valid: false, reason: delivery };
  const limit = view.getUint32(recordLayout.time_limit_milliseconds, true);
  return {
    valid: true,
    procedure: {
      address,
      delivery,
      timeLimitMilliseconds: limit === 0 ? undefined : limit,
      resurrections: view.getUint32(recordLayout.resurrections, true),
    },
  };
}

function headerFault(view: DataView, bytes: Uint8Array, owner: RecordOwner): string | undefined {
  if (view.getBigUint64(0, true) !== recordMagic) return 'has no magic number';
  const crc = crc32(bytes.subarray(0, recordLayout.crc));
  if (crc !== view.getUint32(recordLayout.crc, true)) return 'has a wrong checksum';
  const version = view.getUint32(recordLayout.version, true);
  if (version !== recordVersion) return `is of version ${version}, this crash world knows ${recordVersion}`;
  const size = view.getUint32(recordLayout.size, true);
  if (size !== recordSizeBytes) return `gives its size as ${size}, not ${recordSizeBytes} bytes`;
  const flags = view.getUint32(recordLayout.flags, true);
  if (flags !== 0) return `has unknown flags 0x${flags.toString(16)}`;
  const pid = view.getUint32(recordLayout.pid, true);
  if (pid !== owner.pid) return `was registered by process ${pid} and inherited`;
  return undefined;
}

function readDelivery(
  view: DataView,
  address: number,
  owner: RecordOwner,
): CrashProcedure['delivery'] | string {
  const kind = view.getUint32(recordLayout.delivery, true);
  if (!isMapped(owner, address, recordSizeBytes, PROT_READ | PROT_WRITE))
    return 'is not mapped readable and writable';
  if (kind === deliveryNumber.signal) return readSignal(view, owner);
  if (kind === deliveryNumber.call) return readCall(view, address, owner);
  return `asks for delivery ${kind}, which is neither call nor signal`;
}

function readSignal(view: DataView, owner: RecordOwner): DeliveryBySignal | string {
  const signal = view.getUint32(recordLayout.signal, true);
  if (signal < 1 || signal > lastSignal || signal === SIGKILL || signal === SIGSTOP) {
    return `asks for signal ${signal}, which no handler can receive`;
  }
  const handler = owner.sigactions[signal - 1]?.handler;
  if (handler === undefined || handler <= 1n)
    return `asks for signal ${signal}, for which there is no handler`;
  return { kind: 'signal', signal };
}

function readCall(view: DataView, address: number, owner: RecordOwner): DeliveryByCall | string {
  const entry = userAddress(view, recordLayout.entry);
  const stackBase = userAddress(view, recordLayout.stack_base);
  const stackSizeBytes = userAddress(view, recordLayout.stack_size);
  const restorer = userAddress(view, recordLayout.restorer);
  if (!isMapped(owner, entry, 1, PROT_EXEC))
    return `has its entry point ${hex(entry)} outside executable memory`;
  if (!isMapped(owner, restorer, 1, PROT_EXEC))
    return `has its restorer ${hex(restorer)} outside executable memory`;
  const stack = `its stack ${hex(stackBase)} of ${stackSizeBytes} bytes`;
  if (stackSizeBytes < smallestStackBytes) return `has ${stack}: at least ${smallestStackBytes} are needed`;
  if (stackBase % PAGE_SIZE !== 0 || stackSizeBytes % PAGE_SIZE !== 0) return `has ${stack}: not whole pages`;
  if (!isMapped(owner, stackBase, stackSizeBytes, PROT_READ | PROT_WRITE))
    return `has ${stack}: not writable memory`;
  if (stackBase < address + recordSizeBytes && address < stackBase + stackSizeBytes)
    return `has ${stack} over itself`;
  return {
    kind: 'call',
    entry,
    argument: view.getBigUint64(recordLayout.argument, true),
    stackBase,
    stackSizeBytes,
    restorer,
  };
}

/** A number that no mapping holds stands for what does not fit. */
function userAddress(view: DataView, offset: number): number {
  const value = view.getBigUint64(offset, true);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : Number.MAX_SAFE_INTEGER;
}

/** Whether areas with at least `prot` cover the range without a gap. The areas rise by address. */
function isMapped(owner: RecordOwner, start: number, length: number, prot: number): boolean {
  let at = start;
  for (const vma of owner.vmas) {
    if (vma.end <= at) continue;
    if (vma.start > at || (vma.prot & prot) !== prot) return false;
    at = vma.end;
    if (at >= start + length) return true;
  }
  return false;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
