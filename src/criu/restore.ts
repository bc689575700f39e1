import { spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { openJournalSockets, withNonlocalBind } from './files/index.ts';
import { applyLateSettings } from './late-settings.ts';
import { preparePreResume } from './pre-resume.ts';
import { RESTORE_LOG, readErrors, reasonOf } from './restore-log.ts';
import { type RestorePlan, readRestorePlan } from './restore-plan.ts';

/** How `criu restore` is run. */
export interface RestoreOptions {
  /** The command and its first arguments; `criu` from the search path if not given. */
  readonly command?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** More options for `criu restore`. */
  readonly extra?: readonly string[];
  /** Processes that may have ended when `criu` returns, because a crash procedure decides about them. */
  readonly mayEnd?: ReadonlySet<number>;
  /** After this long `criu` is killed, and what it had restored so far. Default: two minutes, and more for much memory. */
  readonly timeoutSeconds?: number;
}

/** What came of it. */
export type RestoreResult =
  | {
      readonly restored: true;
      /** Processes that are there now. */
      readonly pids: readonly number[];
      readonly seconds: number;
      /** Small things that could not be set again. */
      readonly notes: readonly string[];
    }
  | {
      readonly restored: false;
      /** One short sentence. */
      readonly reason: string;
      /** The log's lines with errors, first ones first. */
      readonly errors: readonly string[];
      readonly logPath: string;
      readonly seconds: number;
    };

const LEAST_TIMEOUT_SECONDS = 120;
/** A tenth of what a slow disk reads. */
const SLOWEST_BYTES_PER_SECOND = 10 * 2 ** 20;

const libc = koffi.load('libc.so.6');
const setPersonality = libc.func('int personality(unsigned long persona)');

function run(
  directory: string,
  plan: RestorePlan,
  options: RestoreOptions,
): Promise<{ status: string; ok: boolean }> {
  const present = plan.pids.filter((pid) => existsSync(`/proc/${pid}`));
  const {
    command = ['criu'],
    env = process.env,
    extra = [],
    timeoutSeconds = defaultTimeoutSeconds(directory),
  } = options;
  const [program = 'criu', ...first] = command;
  const args = ['restore', '--images-dir', directory, '--restore-detached', '--manage-cgroups=ignore'];
  const journal = openJournalSockets(plan.journalSockets);
  args.push('--log-file', RESTORE_LOG, '-v4', ...plan.options, ...journal.options, ...extra);
  // Children get the personality of whoever forks them, and CRIU does not set it.
  const before = setPersonality(0xffff_ffff);
  setPersonality(plan.personality);
  const child = spawn(program, [...first, ...args], {
    env,
    stdio: ['ignore', 'ignore', 'ignore', ...journal.fds],
  });
  setPersonality(before);
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutSeconds * 1000);
    const end = (status: string, ok: boolean) => {
      clearTimeout(timer);
      journal.finish(ok);
      resolve({ status, ok });
    };
    child.on('error', (error) => end(error.message, false));
    child.on('exit', (code, signal) => {
      const late = signal === 'SIGKILL' ? ` after ${timeoutSeconds} s` : '';
      if (signal !== null) endProcesses(plan.pids.filter((pid) => !present.includes(pid)));
      end(signal === null ? `status ${code}` : `${signal}${late}`, code === 0);
    });
  });
}

function defaultTimeoutSeconds(directory: string): number {
  const pages = readdirSync(directory).filter((name) => name.startsWith('pages-'));
  const bytes = pages.reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
  return LEAST_TIMEOUT_SECONDS + Math.ceil(bytes / SLOWEST_BYTES_PER_SECOND);
}

/** A `criu` that was killed leaves the processes that it had made, waiting for it for ever. */
function endProcesses(pids: readonly number[]): void {
  for (const pid of pids.filter((pid) => existsSync(`/proc/${pid}`))) process.kill(pid, 'SIGKILL');
}

/**
 * Restores the group whose images are in `directory`. Nothing is left of a group that could not be restored: CRIU ends what it
 * had made, and if it is killed for its time, that is done here. Throws only if the directory holds no images of a group.
 */
export async function restoreImages(directory: string, options: RestoreOptions = {}): Promise<RestoreResult> {
  const plan = readRestorePlan(directory);
  const started = performance.now();
  const preResume = preparePreResume(directory, () => applyLateSettings(plan));
  const { status, ok } = await withNonlocalBind(() =>
    run(directory, plan, { ...options, extra: [...preResume.options, ...(options.extra ?? [])] }),
  );
  const lateNotes = preResume.finish();
  const seconds = (performance.now() - started) / 1000;
  const logPath = join(directory, RESTORE_LOG);
  const there = plan.pids.filter((pid) => options.mayEnd?.has(pid) || existsSync(`/proc/${pid}`));
  const missing = plan.pids.filter((pid) => !there.includes(pid));
  if (ok && there.length > 0) {
    // Restored, and done with its work since: a `sleep` whose time was over.
    const ended = missing.map((pid) => `process ${pid} ended as soon as it ran again`);
    return {
      restored: true,
      pids: there,
      seconds,
      notes: [...ended, ...(lateNotes ?? applyLateSettings(plan))],
    };
  }
  const errors = readErrors(directory);
  const reason = ok ? `${missing.join(', ')} ended at once` : reasonOf(errors, status);
  return { restored: false, reason, errors, logPath, seconds };
}
