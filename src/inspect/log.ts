import { formatLogRecord, readLog } from '../linux/printk.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Report } from './report.ts';

/** The dead kernel's messages, as dmesg(1) prints them; of a damaged log what comes before the damage. */
export function logReport(kernel: Kernel): Report {
  const { records, damage } = readLog(kernel);
  return {
    json: () => ({
      records: records.map((record) => ({ ...record, timeNanoseconds: Number(record.timeNanoseconds) })),
    }),
    text: () => records.map(formatLogRecord).join('\n'),
    warnings: damage === undefined ? [] : [`the log is incomplete: ${damage}`],
  };
}
