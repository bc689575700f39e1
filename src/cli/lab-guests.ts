import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { removeGuest } from '../../lab/boot.ts';
import { attachConsole } from '../../lab/console.ts';
import { guestNames, guestPaths, guestPid, readGuest } from '../../lab/guest.ts';

/** `otherworld lab list | log | console | down`: the guests that there are. */
export function registerLabGuests(lab: Command): void {
  lab.command('list').description('list guests and their state').option('--json', 'print JSON').action(list);
  lab
    .command('log <name>')
    .description('show what both kernels wrote to the console')
    .option('-f, --follow', 'follow the log as it grows')
    .action((name: string, options: { follow?: boolean }) => {
      readGuest(name);
      const { consoleLog } = guestPaths(name);
      const args = options.follow ? ['-n', '+1', '-f', consoleLog] : ['-n', '+1', consoleLog];
      process.exitCode = spawnSync('tail', args, { stdio: 'inherit' }).status ?? 1;
    });
  lab
    .command('console <name>')
    .description('open a root shell on a serial port, for when the network is down; Ctrl-] leaves it')
    .action(attachConsole);
  lab
    .command('down <name>')
    .description('end a guest, as pulling the plug would, and remove it')
    .action(removeGuest);
}

function list(options: { json?: boolean }): void {
  const guests = guestNames().map((name) => ({ ...readGuest(name), running: guestPid(name) !== undefined }));
  if (options.json) {
    console.log(JSON.stringify(guests, null, 2));
    return;
  }
  const rows = guests.map((guest) => [
    guest.name,
    guest.running ? 'running' : 'stopped',
    guest.kernelRelease,
    `${guest.memoryMiB} MiB`,
    guest.cpus === 1 ? '1 CPU' : `${guest.cpus} CPUs`,
    guest.accelerator,
    guest.forwards.map(({ host, guest: port }) => `${host}:${port}`).join(' '),
  ]);
  for (const row of rows) console.log(alignRow(row, rows).trimEnd());
}

function alignRow(row: readonly string[], rows: readonly (readonly string[])[]): string {
  const width = (column: number): number => Math.max(...rows.map((other) => other[column]?.length ?? 0));
  return row.map((cell, column) => cell.padEnd(width(column))).join('  ');
}
