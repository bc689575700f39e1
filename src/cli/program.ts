import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError, Help, InvalidArgumentError, type Option } from 'commander';
import { INSTALLATION } from '../config/installation.ts';
import { endSteps, sayEachStep } from '../report/steps.ts';
import { messageOf } from '../system/thrown.ts';
import { keepCompiled } from './compile-cache.ts';

/** What every command file exports: it adds its command (with options and action) to the program. */
type Register = (program: Command) => void;

/**
 * One entry per command. Modules are loaded only when their command is called (or for the
 * overall help), so that starting one command does not pay for the libraries of the others.
 */
export type Commands = Readonly<Record<string, () => Promise<Register>>>;

function version(): string {
  const file = readFileSync(join(INSTALLATION, 'package.json'), 'utf8');
  const content: unknown = JSON.parse(file);
  const isWhole = typeof content === 'object' && content !== null && 'version' in content;
  return isWhole ? String(content.version) : '';
}

const standardHelp = new Help();

/** An option that may be repeated begins as an empty list: that is no default to tell of. */
function optionDescription(option: Option): string {
  const { defaultValue, description } = option;
  const isEmptyList = Array.isArray(defaultValue) && defaultValue.length === 0;
  return isEmptyList ? description : standardHelp.optionDescription(option);
}

/**
 * The program as commander knows it.
 * @param args of the command line: the commands that they do not name are not loaded
 */
export async function buildProgram(commands: Commands, args: readonly string[]): Promise<Command> {
  const commandName = args.find((arg) => !arg.startsWith('-'));
  const program = new Command('otherworld')
    .description('Applications that outlive their kernel')
    .version(version())
    .option('--debug', 'show stack traces of errors')
    .option('--verbose', 'print each step and how long it took, on standard error')
    .configureHelp({ showGlobalOptions: true, optionDescription })
    .enablePositionalOptions()
    .showHelpAfterError('--help, also after a command, tells what there is')
    .exitOverride();
  const chosen = commandName === undefined ? undefined : commands[commandName];
  const asksVersion = args[0] === '--version' || args[0] === '-V';
  const loaders = chosen !== undefined ? [chosen] : asksVersion ? [] : Object.values(commands);
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

/** What every command takes. */
interface Everywhere {
  readonly debug: boolean;
  readonly verbose: boolean;
  readonly args: readonly string[];
}

/**
 * `--debug` and `--verbose` are accepted anywhere before `--`; what follows `--` belongs to somebody else's
 * command.
 */
function takeEverywhere(argv: readonly string[]): Everywhere {
  const end = argv.includes('--') ? argv.indexOf('--') : argv.length;
  const own = argv.slice(0, end);
  const args = argv.filter((arg, index) => index >= end || (arg !== '--debug' && arg !== '--verbose'));
  return { debug: own.includes('--debug'), verbose: own.includes('--verbose'), args };
}

/** 128 + SIGPIPE: what a shell says of a program whose reader has read enough (`| head`). */
const READER_GONE = 141;

/**
 * Ends without a word when nobody reads the output any more, and with a message where it cannot be written.
 */
function endWithReader(): void {
  process.stdout.on('error', (error) => {
    if ('code' in error && error.code === 'EPIPE') process.exit(READER_GONE);
    process.stderr.write(`otherworld: the output cannot be written: ${error.message}\n`);
    process.exit(1);
  });
  // Nowhere is left to say it.
  process.stderr.on('error', () => process.exit(1));
}

/**
 * Runs the command of this process's command line.
 * @returns the exit status: 0, 1 for an error, 2 for a wrong command line, or the one that an error carries
 */
export async function runCommandLine(commands: Commands): Promise<number> {
  keepCompiled();
  endWithReader();
  const { debug, verbose, args } = takeEverywhere(process.argv.slice(2));
  if (verbose) sayEachStep();
  try {
    const program = await buildProgram(commands, args);
    await program.parseAsync([...args], { from: 'user' });
    return typeof process.exitCode === 'number' ? process.exitCode : 0;
  } catch (error) {
    const printed = error instanceof CommanderError && !(error instanceof InvalidArgumentError);
    if (printed) return error.exitCode === 0 ? 0 : 2;
    if (debug) console.error(error);
    else console.error(`otherworld: ${messageOf(error)}`);
    return error instanceof InvalidArgumentError ? 2 : exitStatusOf(error);
  } finally {
    endSteps();
  }
}
