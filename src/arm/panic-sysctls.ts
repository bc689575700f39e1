import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../config/schema.ts';

/**
 * What makes the kernel panic instead of limping on (Documentation/admin-guide/sysctl/kernel.rst), by
 * configuration key.
 */
const SWITCHES = [
  ['on-oops', 'panic_on_oops'],
  ['on-unknown-nmi', 'unknown_nmi_panic'],
  ['on-soft-lockup', 'softlockup_panic'],
  ['on-hard-lockup', 'hardlockup_panic'],
  ['on-hung-task', 'hung_task_panic'],
] as const;

/**
 * One sysctl below /proc/sys/kernel: what it is and what the configuration wants; `now` is undefined if this
 * kernel has none.
 */
export interface PanicSysctl {
  readonly name: string;
  readonly now: string | undefined;
  readonly wanted: string;
}

/**
 * The panic sysctls that the configuration asks for. A key that is false asks for nothing: the system's own
 * setting stays.
 */
export function panicSysctls(config: Config, directory = '/proc/sys/kernel'): PanicSysctl[] {
  const switches = SWITCHES.filter(([key]) => config.panic[key]).map(([, name]): [string, string] => [
    name,
    '1',
  ]);
  const reboot: [string, string] = ['panic', String(config.panic['reboot-after-seconds'])];
  return [...switches, reboot].map(([name, value]) => {
    const path = join(directory, name);
    const now = existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
    return { name, now, wanted: value };
  });
}

/**
 * Sets what is not yet as wanted.
 * @returns the values before, to be given to `restoreSysctls`
 */
export function setPanicSysctls(config: Config, directory = '/proc/sys/kernel'): Record<string, string> {
  const before: Record<string, string> = {};
  for (const { name, now, wanted } of panicSysctls(config, directory)) {
    if (now === undefined || now === wanted) continue;
    before[name] = now;
    writeFileSync(join(directory, name), wanted);
  }
  return before;
}

/**
 * Puts the sysctls back that are still as the configuration wanted them; one that somebody has set since is
 * left alone.
 * @param before what setPanicSysctls returned
 * @param config the configuration that it was called with
 * @returns what those that were put back had before that, to be given to `writeSysctls`
 */
export function restoreSysctls(
  before: Readonly<Record<string, string>>,
  config: Config,
  directory = '/proc/sys/kernel',
): Record<string, string> {
  const replaced: Record<string, string> = {};
  for (const { name, now, wanted } of panicSysctls(config, directory)) {
    const value = before[name];
    if (value === undefined || now !== wanted) continue;
    replaced[name] = now;
    writeFileSync(join(directory, name), value);
  }
  return replaced;
}

/** Sets sysctls, by their names. */
export function writeSysctls(values: Readonly<Record<string, string>>, directory = '/proc/sys/kernel'): void {
  for (const [name, value] of Object.entries(values)) writeFileSync(join(directory, name), value);
}
