import { forEachLogRecord, formatLogRecord } from '../linux/printk.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Report } from './report.ts';

/** The dead kernel's messages, as dmesg(1) prints them. */
export function logReport(kernel: Kernel): Report {
  const records = [...forEachLogRecord(kernel)];
  return {
    json: () => ({
      records: records.map((record) => ({ ...record, timeNanoseconds: Number(record.timeNanoseconds) })),
    }),
    text: () => records.map(formatLogRecord).join('\n'),
  };
}
