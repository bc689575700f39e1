import { type Command, InvalidArgumentError } from 'commander';
import type { Inspection } from '../inspect/inspection.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { printable } from '../report/printable.ts';
import { beginStep } from '../report/steps.ts';
import { wellFormed } from '../system/byte-text.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { openKernel } from '../vmcore/open.ts';
import { readProfile } from '../vmcore/profile.ts';

/** PID_MAX_LIMIT on 64 bits. */
const MAX_PID = 1 << 22;

function pidOf(text: string): number {
  if (!/^\d{1,7}$/.test(text) || Number(text) > MAX_PID)
    throw new InvalidArgumentError(`"${text}" is no PID: a whole number is wanted, such as \`ps\` lists`);
  return Number(text);
}

/** One way of looking at a dump; loads only what it needs. */
interface View {
  readonly usage: string;
  readonly description: string;
  /** Least and most arguments after the view's name. */
  readonly count: readonly [least: number, most: number];
  inspect(kernel: Kernel, args: readonly string[]): Promise<Inspection>;
}

const views: Readonly<Record<string, View>> = {
  summary: {
    usage: 'summary',
    description: 'which kernel, which machine, how it died (the default)',
    count: [0, 0],
    inspect: async (kernel) => (await import('../inspect/summary.ts')).summaryInspection(kernel),
  },
  ps: {
    usage: 'ps',
    description: 'processes; > marks those on a CPU; RSS in KiB',
    count: [0, 0],
    inspect: async (kernel) => (await import('../inspect/ps.ts')).psInspection(kernel),
  },
  maps: {
    usage: 'maps [PID]',
    description: 'memory areas, as /proc/PID/maps had them; of every process if none is named',
    count: [0, 1],
    inspect: async (kernel, [pid]) => {
      const { allMapsInspection, mapsInspection } = await import('../inspect/maps.ts');
      return pid === undefined ? allMapsInspection(kernel) : mapsInspection(kernel, pidOf(pid));
    },
  },
  files: {
    usage: 'files PID',
    description: 'open files',
    count: [1, 1],
    inspect: async (kernel, [pid = '']) =>
      (await import('../inspect/files.ts')).filesInspection(kernel, pidOf(pid)),
  },
  threads: {
    usage: 'threads PID',
    description: 'threads, the system call each is in, its user registers',
    count: [1, 1],
    inspect: async (kernel, [pid = '']) =>
      (await import('../inspect/threads.ts')).threadsInspection(kernel, pidOf(pid)),
  },
  stack: {
    usage: 'stack PID',
    description: 'where in the kernel each thread was, as /proc/PID/stack had it',
    count: [1, 1],
    inspect: async (kernel, [pid = '']) =>
      (await import('../inspect/stack.ts')).stackInspection(kernel, pidOf(pid)),
  },
  log: {
    usage: 'log',
    description: "the kernel's messages, as dmesg shows them",
    count: [0, 0],
    inspect: async (kernel) => (await import('../inspect/log.ts')).logInspection(kernel),
  },
  struct: {
    usage: 'struct NAME [ADDRESS]',
    description: "a structure's layout, or its values at an address (0x...) or symbol",
    count: [1, 2],
    inspect: async (kernel, [name = '', at]) =>
      (await import('../inspect/struct.ts')).structInspection(kernel, name, at),
  },
  symbol: {
    usage: 'symbol NAME',
    description: "a symbol's address, or the symbol at an address (0x...), also of modules",
    count: [1, 1],
    inspect: async (kernel, [name = '']) =>
      (await import('../inspect/symbol.ts')).symbolInspection(kernel, name),
  },
};

const HELP = `
FILE is /proc/vmcore, an ELF vmcore, a kdump-compressed file of makedumpfile, or a dump by QEMU or libvirt; or
/proc/kcore, the running kernel, which changes while it is looked at: what is marked there may be whole the next time.
No debug package is needed: symbols and types are read from the dump.

What to look at:
${Object.values(views)
  .map(({ usage, description }) => `  ${usage.padEnd(24)}${description}`)
  .join('\n')}

Exit status: 0 whole, 1 nothing could be read, 2 wrong command line, 3 incomplete: what is missing or doubtful is marked
in its place and named on standard error. The fields of --json are in docs/inspect.md.

Examples:
  otherworld inspect vmcore
  otherworld inspect vmcore maps 812
  otherworld inspect /proc/kcore stack 812
  otherworld inspect vmcore struct task_struct init_task --json`;

/**
 * Something is missing from what was shown, or doubtful in it: exit status 3, to be told from a file that
 * cannot be read.
 */
class IncompleteError extends Error {
  readonly exitStatus = 3;
}

interface InspectOptions {
  readonly json?: boolean;
  readonly profile?: string;
}

async function inspect(
  file: string,
  name: string,
  args: readonly string[],
  options: InspectOptions,
): Promise<void> {
  const view = Object.hasOwn(views, name) ? views[name] : undefined;
  if (view === undefined) {
    throw new InvalidArgumentError(`there is no view "${name}": ${Object.keys(views).join(', ')}`);
  }
  const [least, most] = view.count;
  if (args.length < least || args.length > most)
    throw new InvalidArgumentError(`usage: otherworld inspect FILE ${view.usage}`);
  const profile = options.profile === undefined ? undefined : readProfile(options.profile);
  beginStep(`opening ${file}`);
  const kernel = openKernel(file, profile);
  beginStep(`reading for ${name}`);
  const inspection = await view.inspect(kernel, args);
  const { problems = [], remarks = [] } = inspection;
  const release = uncheckedRelease(kernel.release);
  const unchecked = release === undefined ? [] : [release];
  beginStep(`showing ${name}`);
  const output =
    options.json === true
      ? JSON.stringify(
          { ...inspection.json(), problems, warnings: [...kernel.warnings, ...unchecked] },
          wellFormed,
          2,
        )
      : printable(inspection.text());
  if (output !== '') process.stdout.write(`${output}\n`);
  const notes = [
    ...(name === 'summary' ? [] : kernel.warnings),
    ...unchecked,
    ...remarks,
    ...shortened(problems),
  ];
  for (const note of notes) process.stderr.write(printable(`otherworld: ${file}: ${note}\n`));
  if (problems.length > 0) throw new IncompleteError(`${file}: what is shown is incomplete`);
}

const MAX_PROBLEMS = 20;

function shortened(problems: readonly string[]): string[] {
  const rest = problems.length - MAX_PROBLEMS;
  return [...problems.slice(0, MAX_PROBLEMS), ...(rest > 0 ? [`and ${rest} more of the kind`] : [])];
}

/** `otherworld inspect`: looks into a dump. */
export function registerInspect(program: Command): void {
  program
    .command('inspect')
    .description(
      'look into a dead kernel, or the running one: processes, memory maps, files, log, structures',
    )
    .argument('<file>', 'the dump')
    .argument('[view]', 'what to look at', 'summary')
    .argument('[argument...]', 'PID, structure, symbol or address')
    .option('--json', 'print JSON')
    .option('--profile <file>', 'take symbols and types from a profile of the same boot, not from the dump')
    .addHelpText('after', HELP)
    .action((file: string, view: string, args: string[], options: InspectOptions) =>
      inspect(file, view, args, options),
    );
}
