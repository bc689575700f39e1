import { closeSync, existsSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import { CRASH_WORLD_PARAMETER } from '../src/config/paths.ts';
import { guestPaths } from './guest.ts';

/** The last lines that the guest wrote to its console. */
export function consoleTail(name: string, lines: number): string {
  const { consoleLog } = guestPaths(name);
  if (!existsSync(consoleLog)) return '';
  const size = statSync(consoleLog).size;
  const length = Math.min(size, 64 * 1024);
  const buffer = Buffer.alloc(length);
  const fd = openSync(consoleLog, 'r');
  readSync(fd, buffer, 0, length, size - length);
  closeSync(fd);
  return buffer.toString('utf8').replaceAll('\r', '').trimEnd().split('\n').slice(-lines).join('\n');
}

/** Whether the kernel that began last on the console is that of a crash world. */
export function bootedCrashWorld(name: string): boolean {
  const { consoleLog } = guestPaths(name);
  const lines = existsSync(consoleLog)
    ? readFileSync(consoleLog, 'latin1').match(/\] Command line: .*/g)
    : null;
  return lines?.at(-1)?.includes(CRASH_WORLD_PARAMETER) ?? false;
}
