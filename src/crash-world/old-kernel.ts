import { join } from 'node:path';
import { PAYLOAD_DIRECTORY } from '../config/paths.ts';
import { currentTask, panicCpu } from '../linux/current.ts';
import { lastWords, panicReason } from '../linux/panic.ts';
import { formatLogEntry, type LogRecord, readLog } from '../linux/printk.ts';
import { crashTime } from '../linux/readers/clock-witnesses.ts';
import { readClocks } from '../linux/readers/clocks.ts';
import type { PanicReport } from '../report/schema.ts';
import { messageWithCauses } from '../system/thrown.ts';
import { readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { openKernel } from '../vmcore/open.ts';
import { readProfile } from '../vmcore/profile.ts';
import { readCandidate } from './processes/select.ts';
import { say } from './stages/stage-runner.ts';

const VMCORE = '/proc/vmcore';

/** The dead kernel, if its memory can be read. */
export interface Opened {
  readonly kernel: Kernel | undefined;
  readonly error?: unknown;
  /** Why the profile was not used. */
  readonly note?: string;
}

/**
 * With the profile that was taken when the kernel was healthy; if that does not fit, with what the dead
 * kernel says of itself.
 */
export function openDeadKernel(profilePath = join(PAYLOAD_DIRECTORY, 'profile')): Opened {
  let note: string | undefined;
  try {
    return { kernel: openKernel(VMCORE, readProfile(profilePath)) };
  } catch (error) {
    note = `the profile was not used: ${messageWithCauses(error)}`;
  }
  try {
    return { kernel: openKernel(VMCORE), note };
  } catch (error) {
    say(`the dead kernel cannot be read: ${messageWithCauses(error)}`);
    console.error(error);
    return { kernel: undefined, error, note };
  }
}

/** The dead kernel's log. */
export interface OldLog {
  /** As dmesg(1) prints it. */
  readonly text: string;
  readonly records: readonly LogRecord[];
}

/** Reads the log; of a damaged one all that is left, with a line wherever something is missing. */
export function readOldLog(kernel: Kernel): OldLog & { readonly damage: string | undefined } {
  const { records, entries, damage } = readLog(kernel);
  return { text: entries.map((entry) => `${formatLogEntry(entry)}\n`).join(''), records, damage };
}

/**
 * When the dead kernel panicked, by its own wall clock, and how sure that is: CRASHTIME of VMCOREINFO has
 * whole seconds and is written by the crash code itself; the timekeeper is exact to a tick, and is believed
 * if the two agree.
 */
export function panicTimeNanoseconds(kernel: Kernel): bigint {
  const crashed = crashTime(kernel) ?? 0n;
  try {
    const { realtime } = readClocks(kernel);
    const apart = realtime - crashed;
    if (crashed === 0n || (apart > -2_000_000_000n && apart < 2_000_000_000n)) return realtime;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
  }
  return crashed;
}

/** What is known of the panic itself. */
export function describePanic(kernel: Kernel, log: OldLog, atNanoseconds: bigint): PanicReport {
  const last = log.records.at(-1);
  const cpu = readable(() => panicCpu(kernel));
  const running =
    cpu === undefined ? undefined : readable(() => readCandidate(kernel, currentTask(kernel, cpu)));
  return {
    at: new Date(Number(atNanoseconds / 1_000_000n)).toISOString(),
    message: panicReason(log.records) ?? lastWords(log.records) ?? 'the kernel left no message',
    release: kernel.release,
    uptimeSeconds: Number((last?.timeNanoseconds ?? 0n) / 1_000_000n) / 1000,
    ...(cpu === undefined ? {} : { cpu }),
    ...(running === undefined
      ? {}
      : {
          process: {
            pid: running.pid,
            comm: running.comm,
            uid: running.uid,
            ...(running.exe === undefined ? {} : { exe: running.exe }),
          },
        }),
  };
}
