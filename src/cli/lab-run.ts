import type { Command } from 'commander';
import { copyFiles, execInherited } from '../../lab/channel.ts';
import { wholeNumber } from './arguments.ts';

/** `otherworld lab exec` and `lab copy`: using a guest. */
export function registerLabRun(lab: Command): void {
  lab
    .command('exec <name> <command...>')
    .usage('<name> [options] -- <command> [argument...]')
    .description('run a command in a guest, as root; exit status, output and error are those of the command')
    .option('--timeout <seconds>', 'end it after this time with status 124', wholeNumber)
    .option('-t, --tty', 'give it a terminal')
    .action(async (name: string, command: string[], options: { timeout?: number; tty?: boolean }) => {
      process.exitCode = await execInherited(name, command, {
        timeoutSeconds: options.timeout,
        terminal: options.tty,
      });
    });
  lab
    .command('copy <name> <source> <destination>')
    .description('copy a file or directory; the side written NAME:PATH is in the guest')
    .action(copyFiles);
}
