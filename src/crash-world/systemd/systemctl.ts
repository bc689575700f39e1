import { execFileSync } from 'node:child_process';

/** What `systemctl` prints. Throws an Error with what it says if it fails. */
export function systemctl(...args: string[]): string {
  return execFileSync('systemctl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}

/** Properties of a unit, by name. */
export function show(unit: string, ...names: string[]): Map<string, string> {
  const lines = systemctl('show', ...names.map((name) => `--property=${name}`), '--', unit).split('\n');
  return new Map(lines.map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1)]));
}
