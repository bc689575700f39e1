import { readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { ID_BITS, isGap, type LogEntry, type LogGap, type LogRecord, openRing } from './printk-ringbuffer.ts';

export { isGap, type LogEntry, type LogGap, type LogRecord } from './printk-ringbuffer.ts';

/** What could be read of the log. */
export interface LogRead {
  readonly records: readonly LogRecord[];
  /** Records and, between them, what is missing: oldest first. */
  readonly entries: readonly LogEntry[];
  /** What is wrong with the log, as a sentence; undefined if it is whole. */
  readonly damage: string | undefined;
}

function damageOf(entries: readonly LogEntry[], ringDamage: string | undefined): string | undefined {
  const gaps = entries.filter(isGap);
  const missing = gaps.reduce((sum, gap) => sum + gap.missing, 0);
  const doubtful = entries.filter((entry) => !isGap(entry) && entry.doubt !== undefined).length;
  const [first] = gaps;
  const sentences = [
    ...(ringDamage === undefined ? [] : [ringDamage]),
    ...(first === undefined
      ? []
      : [`${missing} of its records are missing (record ${first.sequence} ${first.problem})`]),
    ...(doubtful === 0 ? [] : [`${doubtful} of its records are doubtful`]),
  ];
  return sentences.length === 0 ? undefined : sentences.join('; ');
}

const OUT_OF_TURN = { problem: 'is damaged: its text is given up, and that of an older record is not' };

function readEntries(kernel: Kernel): { entries: LogEntry[]; damage: string | undefined } {
  const { reader, extent } = openRing(kernel);
  const { first, count, damage } = extent;
  const entries: LogEntry[] = [];
  let gap: (LogGap & { missing: number }) | undefined;
  const writers = readable(() => kernel.possibleCpus.length) ?? 1;
  for (let i = 0; i < count; i++) {
    const id = BigInt.asUintN(ID_BITS, first + BigInt(i));
    const found = reader.slot(id);
    // The oldest texts are overwritten first. CPUs that write at the same time may have their texts in
    // another order than their records.
    if (found === 'overwritten' && entries.length < writers) continue;
    const slot = found === 'overwritten' ? OUT_OF_TURN : found;
    if ('sequence' in slot) {
      entries.push(slot);
      gap = undefined;
    } else if (gap !== undefined) gap.missing++;
    else {
      gap = { sequence: reader.sequenceOf(id), missing: 1, problem: slot.problem };
      entries.push(gap);
    }
  }
  return { entries, damage };
}

/**
 * The kernel's log, oldest record first. Records that have been overwritten are left out; where one is
 * missing that should be there (damaged, not in the dump, or being written when the kernel died), a gap says
 * so. Throws nothing for a damaged log.
 */
export function readLog(kernel: Kernel): LogRead {
  try {
    const { entries, damage } = readEntries(kernel);
    const records = entries.filter((entry): entry is LogRecord => !isGap(entry));
    return { records, entries, damage: damageOf(entries, damage) };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { records: [], entries: [], damage: error.message };
  }
}

/**
 * The newest record of {@link readLog}, without reading those before it: of a full log they are thousands.
 * Undefined if there is none.
 */
export function lastLogRecord(kernel: Kernel): LogRecord | undefined {
  try {
    const { reader, extent } = openRing(kernel);
    for (let i = extent.count - 1; i >= 0; i--) {
      const slot = reader.slot(BigInt.asUintN(ID_BITS, extent.first + BigInt(i)));
      if (slot !== 'overwritten' && 'sequence' in slot) return slot;
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}

const NANOSECONDS = 1_000_000_000n;

/**
 * A record the way dmesg(1) prints it: seconds since boot in brackets, further lines indented below the
 * first.
 */
export function formatLogRecord(record: LogRecord): string {
  const seconds = (record.timeNanoseconds / NANOSECONDS).toString().padStart(5);
  const micros = ((record.timeNanoseconds % NANOSECONDS) / 1000n).toString().padStart(6, '0');
  const prefix = `[${seconds}.${micros}] `;
  return prefix + record.text.replaceAll('\n', `\n${' '.repeat(prefix.length)}`);
}

/** The same with a line for what is missing or doubtful: no line of the kernel begins that way. */
export function formatLogEntry(entry: LogEntry): string {
  if (isGap(entry)) {
    const { sequence, missing, problem } = entry;
    return missing === 1
      ? `--- record ${sequence} is missing: it ${problem}`
      : `--- ${missing} records are missing from ${sequence} on: the first ${problem}`;
  }
  const doubt = entry.doubt === undefined ? '' : `\n--- record ${entry.sequence} is doubtful: ${entry.doubt}`;
  return formatLogRecord(entry) + doubt;
}
