import { type CrashProcedure, recordLayout, recordSizeBytes } from './crash-procedure.ts';

const idBytes = 64;
const syscallBytes = 32;
const itemBytes = 128;

/** Items that a record has room for. */
export const itemCapacity = (recordSizeBytes - recordLayout.items) / itemBytes;

/** Bits of `restrictions`. */
const restriction = { mayNotContinue: 1 } as const;

/**
 * Something that a procedure is told: a thing that did not come back, or a system call of uncertain effect.
 */
export interface ProcedureItem {
  readonly kind: 'lost' | 'in-doubt';
  readonly fd: number | undefined;
  readonly tid: number | undefined;
  readonly what: string;
}

/** What a procedure is told about its kernel's death. */
export interface ProcedureIncident {
  readonly id: string;
  /** CLOCK_REALTIME of the panic, in nanoseconds. */
  readonly panicTimeNanoseconds: bigint;
  readonly items: readonly ProcedureItem[];
  /** System call that the first thread was in; undefined if it was running in user mode. */
  readonly interruptedSyscall: string | undefined;
  /** Whether the process may go on where it was. */
  readonly mayContinue: boolean;
}

/**
 * State of a procedure as its record shows it: the program says `continued` or `gave-up`, the crash world the
 * others.
 */
export type ProcedureState = 'nothing' | 'delivered' | 'continued' | 'gave-up' | 'abandoned';

const procedureStates: readonly ProcedureState[] = [
  'nothing',
  'delivered',
  'continued',
  'gave-up',
  'abandoned',
];

/** What the crash world writes into a record when it waits for its procedure no longer. */
export const abandonedState = procedureStates.indexOf('abandoned');

/**
 * The whole record with the incident filled in, as the process is to find it.
 *
 * @param header the record's bytes up to the incident (256 of them), which stay as they are
 * @param frame user address of the interrupted context, 0 with delivery by signal
 */
export function writeIncident(
  header: Uint8Array,
  procedure: CrashProcedure,
  incident: ProcedureIncident,
  frame: number,
): Uint8Array {
  const record = Buffer.alloc(recordSizeBytes);
  record.set(header.subarray(0, recordLayout.state));
  const items = incident.items.slice(0, itemCapacity);
  record.writeUInt32LE(procedureStates.indexOf('delivered'), recordLayout.state);
  record.writeUInt32LE(procedure.resurrections + 1, recordLayout.resurrections);
  record.writeBigInt64LE(incident.panicTimeNanoseconds, recordLayout.panic_time_nanoseconds);
  record.writeBigUInt64LE(BigInt(frame), recordLayout.frame);
  record.writeUInt32LE(items.length, recordLayout.item_count);
  record.writeUInt32LE(incident.items.length - items.length, recordLayout.items_omitted);
  writeText(record, recordLayout.id, idBytes, incident.id);
  writeText(record, recordLayout.interrupted_syscall, syscallBytes, incident.interruptedSyscall ?? '');
  record.writeUInt32LE(incident.mayContinue ? 0 : restriction.mayNotContinue, recordLayout.restrictions);
  for (const [index, item] of items.entries()) {
    writeItem(record.subarray(recordLayout.items + index * itemBytes), item);
  }
  return record;
}

function writeItem(at: Buffer, item: ProcedureItem): void {
  at.writeUInt32LE(item.kind === 'lost' ? 1 : 2, 0);
  at.writeInt32LE(item.fd ?? -1, 4);
  at.writeInt32LE(item.tid ?? 0, 8);
  writeText(at, recordLayout.what, itemBytes - recordLayout.what, item.what);
}

/** Cut at a whole character, ended by a zero byte. */
function writeText(buffer: Buffer, offset: number, room: number, text: string): void {
  new TextEncoder().encodeInto(text, buffer.subarray(offset, offset + room - 1));
}

/** What a process has made of its incident, from the record's bytes (292 of them at least). */
export function readProcedureState(record: Uint8Array): { state: ProcedureState; exitStatus: number } {
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  const state = procedureStates[view.getUint32(recordLayout.state, true)] ?? 'nothing';
  return { state, exitStatus: view.getInt32(recordLayout.exit_status, true) };
}
