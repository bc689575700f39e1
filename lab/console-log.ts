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

/** What a kernel that has panicked says of it on the guest's console; undefined as long as none has. */
export function panicOnConsole(name: string): string | undefined {
  const { consoleLog } = guestPaths(name);
  return existsSync(consoleLog) ? panicLine(readFileSync(consoleLog, 'latin1')) : undefined;
}

/** The first line of a console's text that tells of a panic, from there on. */
export function panicLine(text: string): string | undefined {
  return /Kernel panic - not syncing: .*/.exec(text)?.[0].trimEnd();
}

/** Whether the kernel that began last on the console is that of a crash world. */
export function bootedCrashWorld(name: string): boolean {
  const { consoleLog } = guestPaths(name);
  const lines = existsSync(consoleLog)
    ? readFileSync(consoleLog, 'latin1').match(/\] Command line: .*/g)
    : null;
  return lines?.at(-1)?.includes(CRASH_WORLD_PARAMETER) ?? false;
}
