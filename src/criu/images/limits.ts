import type { ProcessGroup } from '../../model/group.ts';
import type { Process } from '../../model/process.ts';
import type { Refusal } from '../../model/verdict.ts';

/** A release of CRIU: `Version: 3.17.1` of `criu --version`. */
export interface CriuVersion {
  readonly major: number;
  readonly minor: number;
}

/** Reads the output of `criu --version`; undefined if it says no version. */
export function parseCriuVersion(output: string): CriuVersion | undefined {
  const match = /Version:\s*(\d+)\.(\d+)/.exec(output);
  return match === null ? undefined : { major: Number(match[1]), minor: Number(match[2]) };
}

/** What images can say but a CRIU older than 4 does not know (it skips the fields in silence). */
function olderCriuProblems({ threads, membarrierRegistrations }: Process): string[] {
  const problems: string[] = [];
  if (threads.some(({ credentials }) => credentials.noNewPrivs)) problems.push('no_new_privs');
  if (threads.some(({ credentials }) => credentials.capAmbient !== 0n)) problems.push('ambient capabilities');
  if (membarrierRegistrations !== 0) problems.push('registrations for membarrier');
  return problems.map((what) => `has ${what}, which CRIU before 4.0 does not restore`);
}

/**
 * Nobody has come back into a sandbox with CRIU 3.17 of Debian 12. The service would be started afresh when
 * the system boots, which is not said before the panic.
 */
function olderSandboxProblems({ sandbox }: ProcessGroup): string[] {
  return sandbox === undefined
    ? []
    : [`is in the sandbox of ${sandbox.unit}, where CRIU before 4.0 has restored nobody yet`];
}

/**
 * An interval timer without an interval is one that is not set to CRIU before 4.1 (decode_itimer in
 * criu/timer.c, before 4.0 in criu/cr-restore.c).
 */
function onceTimerProblems({ intervalTimers }: Process): string[] {
  const isOnce = Object.values(intervalTimers).some(
    ({ intervalMicroseconds, remainingMicroseconds }) =>
      intervalMicroseconds === 0 && remainingMicroseconds > 0,
  );
  return isOnce
    ? ['has a timer that goes off once (alarm, setitimer), which CRIU before 4.1 does not restore']
    : [];
}

function problemsOf(process: Process, group: ProcessGroup, version: CriuVersion | undefined): string[] {
  const isOlder = version !== undefined && version.major < 4;
  const problems = isOlder ? [...olderCriuProblems(process), ...olderSandboxProblems(group)] : [];
  if (version !== undefined && (isOlder || (version.major === 4 && version.minor < 1)))
    problems.push(...onceTimerProblems(process));
  const inGroup = group.processes.some(({ pid }) => pid === process.ppid);
  const signal = process.threads.find(({ parentDeathSignal }) => parentDeathSignal !== 0)?.parentDeathSignal;
  if (signal !== undefined && !inGroup) {
    problems.push(
      `wants signal ${signal} when its parent ends, and its parent ${process.ppid} is not brought back`,
    );
  }
  const personality = group.processes[0]?.personality;
  if (process.personality !== personality) problems.push('has another personality than its group');
  return problems;
}

/**
 * Reasons why the CRIU that will do it cannot restore a group. Empty: it can. Without a version only what no
 * CRIU can do is named.
 */
export function restoreProblems(group: ProcessGroup, version: CriuVersion | undefined): Refusal[] {
  return group.processes.flatMap((process) => {
    const reasons = problemsOf(process, group, version);
    return reasons.length === 0 ? [] : [{ pid: process.pid, comm: process.comm, reasons }];
  });
}

/** Refuses a whole group: its culprits with their reasons, the others because of them. */
export function wholeGroup(group: ProcessGroup, problems: readonly Refusal[]): Refusal[] {
  const culprits = [...new Map(problems.map(({ pid, comm }) => [pid, `${pid} (${comm})`])).values()].join(
    ', ',
  );
  return group.processes.map(({ pid, comm }) => {
    const own = problems.filter((problem) => problem.pid === pid).flatMap(({ reasons }) => reasons);
    const reasons = own.length > 0 ? own : [`belongs together with ${culprits}, which cannot come back`];
    return { pid, comm, reasons };
  });
}
