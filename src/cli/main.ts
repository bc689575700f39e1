import { readFileSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command, CommanderError, InvalidArgumentError } from 'commander';

/** What every command file exports: it adds its command (with options and action) to the program. */
type Register = (program: Command) => void;

/**
 * One entry per command of `otherworld`. Modules are loaded only when their command is called (or for the
 * overall help), so that starting one command does not pay for the libraries of the others.
 */
const commands: Readonly<Record<string, () => Promise<Register>>> = {
  demo: async () => (await import('./demo.ts')).registerDemo,
  arm: async () => (await import('./arm.ts')).registerArm,
  disarm: async () => (await import('./disarm.ts')).registerDisarm,
  status: async () => (await import('./status.ts')).registerStatus,
  protect: async () => (await import('./protect.ts')).registerProtect,
  unprotect: async () => (await import('./unprotect.ts')).registerUnprotect,
  doctor: async () => (await import('./doctor.ts')).registerDoctor,
  report: async () => (await import('./report.ts')).registerReport,
  inspect: async () => (await import('./inspect.ts')).registerInspect,
  extract: async () => (await import('./extract.ts')).registerExtract,
  lab: async () => (await import('./lab.ts')).registerLab,
  test: async () => (await import('./test.ts')).registerTest,
};

function version(): string {
  const file = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const content: unknown = JSON.parse(file);
  const isWhole = typeof content === 'object' && content !== null && 'version' in content;
  return isWhole ? String(content.version) : '';
}

/** Keeps what Node made of the TypeScript sources: starting again takes a third less. Where that cannot be kept, it does without. */
function keepCompiled(): void {
  enableCompileCache(join(homedir(), '.cache', 'otherworld', 'compiled'));
}

async function buildProgram(commandName: string | undefined): Promise<Command> {
  const program = new Command('otherworld')
    .description('Applications that outlive their kernel')
    .version(version())
    .option('--debug', 'show stack traces of errors')
    .enablePositionalOptions()
    .exitOverride();
  const chosen = commandName === undefined ? undefined : commands[commandName];
  const loaders = chosen === undefined ? Object.values(commands) : [chosen];
  for (const load of loaders) (await load())(program);
  for (const command of program.commands) command.exitOverride();
  return program;
}

/** Errors may carry the exit status that the command is to end with; any other error ends with 1. */
function exitStatusOf(error: unknown): number {
  if (error instanceof Error && 'exitStatus' in error && typeof error.exitStatus === 'number') {
    return error.exitStatus;
  }
  return 1;
}

/** `--debug` is accepted anywhere before `--`; what follows `--` belongs to somebody else's command. */
function takeDebug(argv: readonly string[]): { debug: boolean; args: string[] } {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
  const args = argv.filter((arg, index) => index >= end || arg !== '--debug');
  return { debug: args.length < argv.length, args };
}

async function main(argv: readonly string[]): Promise<number> {
  const { debug, args } = takeDebug(argv);
  try {
    const program = await buildProgram(args.find((arg) => !arg.startsWith('-')));
    await program.parseAsync([...args], { from: 'user' });
    return typeof process.exitCode === 'number' ? process.exitCode : 0;
  } catch (error) {
    const printed = error instanceof CommanderError && !(error instanceof InvalidArgumentError);
    if (printed) return error.exitCode === 0 ? 0 : 2;
    if (debug) console.error(error);
    else console.error(`otherworld: ${error instanceof Error ? error.message : String(error)}`);
    return error instanceof InvalidArgumentError ? 2 : exitStatusOf(error);
  }
}

keepCompiled();
process.exitCode = await main(process.argv.slice(2));
