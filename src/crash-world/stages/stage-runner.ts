import { readFileSync, writeFileSync } from 'node:fs';
import type { IncidentReport, StageReport } from '../../report/schema.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { belowOwnPeak, forgetOwnPeak, readMemory } from '../machine/meminfo.ts';

/** What a stage that did nothing ends with, and why. */
export class StageSkipped extends Error {
  override readonly name = 'StageSkipped';
}

interface StageEnd {
  readonly end?: number;
  readonly outcome?: StageReport['outcome'];
  readonly detail?: string | undefined;
}

/** Seconds since this kernel started. */
export function uptimeSeconds(): number {
  return Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
}

/**
 * Runs the steps of a resurrection one after the other. A step that throws is noted in the report and ends
 * with undefined; what comes after it runs on with what there is. After each step the report is saved, so
 * that it tells how far things got whatever happens.
 */
export class StageRunner {
  readonly report: IncidentReport;
  readonly #save: (report: IncidentReport) => void;

  constructor(report: IncidentReport, save: (report: IncidentReport) => void) {
    this.report = report;
    this.#save = save;
  }

  /** Runs one step. @returns its result, or undefined if it failed or skipped itself with StageSkipped */
  async run<T>(name: string, step: () => T | Promise<T>): Promise<T | undefined> {
    const start = uptimeSeconds();
    let result: T | undefined;
    let outcome: StageReport['outcome'] = 'done';
    let detail: string | undefined;
    try {
      result = await step();
    } catch (error) {
      outcome = error instanceof StageSkipped ? 'skipped' : 'failed';
      detail = messageWithCauses(error);
      if (outcome === 'failed') {
        this.report.errors.push(`${name}: ${detail}`);
        console.error(error);
      }
    }
    this.note(name, start, { outcome, detail });
    return result;
  }

  /** Enters a step by hand: one that was made before there was a report. `end` is now, unless given. */
  note(
    name: string,
    start: number,
    { end = uptimeSeconds(), outcome = 'done', detail }: StageEnd = {},
  ): void {
    const { total, used } = readMemory();
    const { memory } = this.report;
    if (total <= memory.reservedBytes) {
      const peak = memory.reservedBytes - total + used + belowOwnPeak();
      // The bound from above may count what was only read from the disk; nobody uses more than there is.
      memory.peakUsedBytes = Math.min(memory.reservedBytes, Math.max(memory.peakUsedBytes, peak));
      forgetOwnPeak();
    }
    this.report.stages.push({
      name,
      startSeconds: Number(start.toFixed(2)),
      durationSeconds: Number((end - start).toFixed(2)),
      outcome,
      ...(detail === undefined ? {} : { detail }),
      memoryTotalBytes: total,
      memoryUsedBytes: used,
    });
    say(`${name}: ${outcome}${detail === undefined ? '' : ` (${detail.split('\n')[0]})`}`);
    this.save();
  }

  /** Saves the report as it is. */
  save(): void {
    try {
      this.#save(this.report);
    } catch (error) {
      console.error(error);
    }
  }
}

/** Writes a line into the kernel's log, and so to the console. */
export function say(text: string): void {
  try {
    writeFileSync('/dev/kmsg', `otherworld: ${text}\n`);
  } catch {
    // Without a log to write to there is nobody to tell.
  }
}
