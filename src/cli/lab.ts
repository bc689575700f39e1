import type { Command } from 'commander';

/** `otherworld lab`: real Debian guests under QEMU. */
export function registerLab(program: Command): void {
  program.command('lab').description('real Debian guests under QEMU');
}
