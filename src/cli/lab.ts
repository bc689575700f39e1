import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import { bootGuest, removeGuest } from '../../lab/boot.ts';
import { copyFiles, execInherited } from '../../lab/channel.ts';
import { guestNames, guestPaths, guestPid, readGuest } from '../../lab/guest.ts';
import { stderrProgress } from '../../lab/progress.ts';
import { parseRelease } from '../../lab/release.ts';
import { dumpGuest } from '../../lab/vmcore.ts';

function integer(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('a whole number is wanted');
  return value;
}

function list(text: string, previous: string[]): string[] {
  return [...previous, ...text.split(',').filter(Boolean)];
}

function forward(text: string, previous: { host: number; guest: number }[]): typeof previous {
  const match = /^(\d+):(\d+)$/.exec(text);
  if (!match) throw new InvalidArgumentError('HOSTPORT:GUESTPORT is wanted');
  return [...previous, { host: Number(match[1]), guest: Number(match[2]) }];
}

interface UpOptions {
  release: string;
  memory: number;
  cpus: number;
  crashkernel: number;
  install: string[];
  forward: { host: number; guest: number }[];
  append: string;
  arm: boolean;
}

async function up(name: string, options: UpOptions): Promise<void> {
  const progress = stderrProgress();
  await bootGuest(
    {
      name,
      release: parseRelease(options.release),
      packages: options.install,
      memoryMiB: options.memory,
      cpus: options.cpus,
      crashKernelMiB: options.crashkernel,
      forwards: options.forward,
      append: options.append,
    },
    progress,
  );
  progress.step(`${name} is up: otherworld lab exec ${name} -- CMD`);
}

/** `otherworld lab`: real Debian guests under QEMU. */
export function registerLab(program: Command): void {
  const lab = program.command('lab').description('real Debian guests under QEMU');
  lab
    .command('up <name>')
    .description('boot a fresh guest with Otherworld installed and armed')
    .option('--release <name>', 'trixie or bookworm', 'trixie')
    .option('--memory <MiB>', 'memory of the guest', integer, 2048)
    .option('--cpus <n>', 'virtual CPUs', integer, 2)
    .option('--crashkernel <MiB>', 'memory reserved for the crash kernel', integer, 320)
    .option('--install <packages>', 'Debian packages, separated by commas', list, [])
    .option('--forward <host:guest>', 'a port of 127.0.0.1 that leads into the guest', forward, [])
    .option('--append <parameters>', 'more kernel parameters', '')
    .option('--no-arm', 'boot only: neither install nor arm Otherworld')
    .action(up);
  lab
    .command('exec <name> <command...>')
    .description('run a command in a guest; its exit status, output and error are those of this command')
    .option('--timeout <seconds>', 'end it after this time with status 124', integer)
    .option('-t, --tty', 'give it a terminal')
    .action(async (name: string, command: string[], options: { timeout?: number; tty?: boolean }) => {
      process.exitCode = await execInherited(name, command, {
        timeoutSeconds: options.timeout,
        terminal: options.tty,
      });
    });
  lab
    .command('copy <name> <source> <destination>')
    .description('copy a file or directory; NAME:PATH is in the guest')
    .action(copyFiles);
  lab
    .command('vmcore <name>')
    .description("write the guest's memory as an ELF vmcore")
    .requiredOption('-o, --output <file>', 'the file')
    .action(async (name: string, options: { output: string }) => {
      const bytes = await dumpGuest(name, options.output);
      console.log(`${options.output}: ${(bytes / 2 ** 20).toFixed(0)} MiB`);
    });
  lab
    .command('list')
    .description('guests and their state')
    .action(() => {
      for (const name of guestNames()) {
        const guest = readGuest(name);
        const state = guestPid(name) === undefined ? 'stopped' : 'running';
        console.log(`${name}  ${state}  ${guest.release}  ${guest.kernelRelease}  ${guest.memoryMiB} MiB`);
      }
    });
  lab
    .command('log <name>')
    .description('what both kernels wrote to the console')
    .action((name: string) => {
      readGuest(name);
      process.stdout.write(readFileSync(guestPaths(name).consoleLog));
    });
  lab.command('down <name>').description('end a guest and remove it').action(removeGuest);
}
