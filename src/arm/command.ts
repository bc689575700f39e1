import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { ArmError } from './errors.ts';

/** Where the system's programs are, whatever the caller's PATH. */
export const SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The path of a program of the system, or undefined; sbin counts even where it is not in the caller's PATH.
 */
export function findProgram(name: string): string | undefined {
  return SYSTEM_PATH.split(':')
    .map((directory) => join(directory, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/**
 * Runs a program of the system to its end.
 * @returns what it printed
 * @throws ArmError with the end of what it said, if it fails or cannot be started
 */
export function runProgram(
  name: string,
  args: readonly string[],
  options: { input?: Uint8Array } = {},
): string {
  const result = spawnSync(name, args, {
    ...options,
    encoding: 'utf8',
    env: { ...process.env, PATH: SYSTEM_PATH, LC_ALL: 'C' },
    maxBuffer: 64 * 2 ** 20,
  });
  if (result.error) throw new ArmError(`cannot run ${name}: ${result.error.message}`);
  if (result.status !== 0) {
    const said = `${result.stderr}${result.stdout}`.trim().split('\n').slice(-8).join('\n');
    throw new ArmError(`${name} failed (exit status ${result.status ?? result.signal}): ${said}`);
  }
  return result.stdout;
}
