import { spawnSync } from 'node:child_process';

/** No route that the machine has counts for less. */
export const LAST_METRIC = 0xffff_ffff;

/** Runs commands of ip(8). Throws an Error with the first thing that it complains about. */
export function ip(commands: readonly string[]): void {
  const { status, stderr, error } = spawnSync('ip', ['-batch', '-'], {
    input: `${commands.join('\n')}\n`,
    encoding: 'utf8',
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`ip: ${stderr.trim().split('\n')[0] ?? `status ${status}`}`);
}
