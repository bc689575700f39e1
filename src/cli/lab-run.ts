import type { Command } from 'commander';
import { copyFiles, execInherited } from '../../lab/channel.ts';
import { LabError, WrongUse } from '../../lab/error.ts';
import { wholeNumber } from './arguments.ts';

/** Exit status of `lab exec` when the command could not be run at all. */
const EXEC_FAILED = 125;

const EXEC_USAGE = '<name> [options] -- <command> [argument...]';

/** `otherworld lab exec` and `lab copy`: using a guest. */
export function registerLabRun(lab: Command): void {
  lab
    .command('exec <name> <command...>')
    .usage(EXEC_USAGE)
    .description('run a command in a guest, as root; exit status, output and error are those of the command')
    .showHelpAfterError(`Usage: otherworld lab exec ${EXEC_USAGE}`)
    .option('--timeout <seconds>', 'end the command after this time, with status 124', wholeNumber)
    .option('-t, --tty', 'give the command a terminal')
    .action(async (name: string, command: string[], options: { timeout?: number; tty?: boolean }) => {
      const how = { timeoutSeconds: options.timeout, terminal: options.tty };
      process.exitCode = await execInherited(name, command, how).catch(asLabsOwn);
    });
  lab
    .command('copy <name> <source> <destination>')
    .description('copy a file or directory; the side written NAME:PATH is in the guest')
    .action(copyFiles);
}

/** Tells the lab's own failures from any likely exit status of the command; a wrong command line is 2. */
function asLabsOwn(error: unknown): never {
  if (error instanceof WrongUse) throw error;
  throw error instanceof LabError ? new LabError(error.message, EXEC_FAILED) : error;
}
