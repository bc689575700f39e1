import { formatLogEntry, isGap, type LogEntry, readLog } from '../linux/printk.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Inspection } from './inspection.ts';

function entryJson(entry: LogEntry): object {
  return isGap(entry) ? entry : { ...entry, timeNanoseconds: Number(entry.timeNanoseconds) };
}

/** The dead kernel's messages, as dmesg(1) prints them, with a line for what is missing of them. */
export function logInspection(kernel: Kernel): Inspection {
  const { entries, damage } = readLog(kernel);
  return {
    json: () => ({ records: entries.map(entryJson) }),
    text: () => entries.map(formatLogEntry).join('\n'),
    problems: damage === undefined ? [] : [`the log is incomplete: ${damage}`],
  };
}
