import type { ProtectionRule } from './protection.ts';

/** What rules look at of a process, dead or alive. */
export interface Matchable {
  readonly pid: number;
  readonly comm: string;
  /** Path of its program; undefined if it cannot be told. */
  readonly exe: string | undefined;
  /** Path of its cgroup as in /proc/PID/cgroup; undefined if it cannot be told. */
  readonly cgroup: string | undefined;
  /** Start time in USER_HZ ticks since boot, as in field 22 of /proc/PID/stat. */
  readonly startTicks: number;
}

/** The kernel keeps 15 bytes of a command's name (TASK_COMM_LEN). */
const COMM_BYTES = 15;

/**
 * Whether a rule names a process. A command is the process's name or its program's; a unit is any part of its
 * cgroup's path, so that a slice stands for all in it.
 */
export function matchesRule(rule: ProtectionRule, process: Matchable): boolean {
  switch (rule.kind) {
    case 'pid':
      return rule.pid === process.pid && rule.startTicks === process.startTicks;
    case 'command': {
      const comm = Buffer.from(rule.name).subarray(0, COMM_BYTES).toString();
      return process.comm === comm || process.exe?.split('/').at(-1) === rule.name;
    }
    case 'unit':
      return process.cgroup?.split('/').includes(rule.unit) ?? false;
  }
}
