import type { Command } from 'commander';
import {
  allTargets,
  type Checked,
  type Conclusion,
  causesOf,
  checkThisMachine,
  imagesBytes,
  isBack,
  type Machine,
  pidTargets,
  printCheck,
  protectedTargets,
  type Targets,
  thisMachine,
  unitTargets,
} from '../check/index.ts';
import { loadConfig } from '../config/config.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { memoryFileSystemProblem } from '../report/images-room.ts';
import { styleFor } from '../report/print.ts';
import { printable } from '../report/printable.ts';
import { beginStep } from '../report/steps.ts';
import { wellFormed } from '../system/byte-text.ts';
import type { FreeSpace } from '../system/free-space.ts';
import { findUser, type User } from '../system/users.ts';
import { UsageError, wholeNumber } from './arguments.ts';
import { requireRoot } from './root.ts';

/** What the command line says is to be checked. */
export interface CheckOptions {
  readonly pid: readonly number[];
  readonly all?: boolean;
  readonly user?: string;
  readonly json?: boolean;
}

/** Throws a UsageError if more than one thing is to be checked, or a user is named without a unit. */
export function requireOneTarget(unit: string | undefined, { pid, all, user }: CheckOptions): void {
  const wanted = [unit !== undefined && 'UNIT', pid.length > 0 && '--pid', all === true && '--all'].filter(
    Boolean,
  );
  if (wanted.length > 1) throw new UsageError(`one at a time: ${wanted.join(', ')}`);
  if (unit === '') throw new UsageError('the name of the unit is empty');
  if (user !== undefined && unit === undefined) throw new UsageError('--user goes with a unit');
}

function userOf(name: string | undefined): User | undefined {
  const found = name === undefined ? undefined : findUser(name);
  if (name !== undefined && found === undefined) throw new UsageError(`this system has no user ${name}`);
  return found;
}

function targetsOf(unit: string | undefined, { pid, all, user }: CheckOptions): Targets {
  if (unit !== undefined) return unitTargets(unit, userOf(user));
  if (pid.length > 0) return pidTargets(pid);
  return all === true ? allTargets() : protectedTargets(loadConfig());
}

/**
 * 3: one is refused, or comes back for its procedure alone; 4: none is, but of one it depends on the moment;
 * 0: all would come back and go on.
 */
export function exitStatus(conclusions: readonly Pick<Conclusion, 'outcome'>[]): number {
  if (conclusions.some(({ outcome }) => outcome === 'refused' || outcome === 'for its procedure')) return 3;
  return conclusions.some(({ outcome }) => !isBack(outcome)) ? 4 : 0;
}

function warningsOf(
  { release, room, unknownRoom }: Checked,
  { isArmed, criu }: Machine,
  { problems }: Targets,
): string[] {
  const unchecked = uncheckedRelease(release);
  const inMemory = room === undefined ? unknownRoom : memoryFileSystemProblem(room);
  return [
    ...(isArmed ? [] : ['this system is not armed: what is said holds once it is (otherworld arm)']),
    ...(criu === undefined ? ['CRIU is not installed: what it cannot restore is not known'] : []),
    ...(unchecked === undefined ? [] : [unchecked]),
    ...(inMemory === undefined ? [] : [inMemory]),
    ...problems,
  ];
}

/** What `--json` prints. */
export function toJson(
  conclusions: readonly Conclusion[],
  machine: Pick<Machine, 'isArmed' | 'hasStageZero'>,
  warnings: readonly string[],
  room: FreeSpace | undefined,
  directory: string,
): string {
  const processes = conclusions.map((one) => ({
    ...one,
    causes: causesOf(one).map(({ text, count, advice }) => ({ text, count, advice })),
  }));
  const { isArmed: armed, hasStageZero: stageZero } = machine;
  const images = {
    ...{ neededBytes: imagesBytes(conclusions), freeBytes: room?.bytes ?? null },
    directory: room?.directory ?? directory,
  };
  return JSON.stringify({ armed, stageZero, images, processes, warnings }, wellFormed, 2);
}

async function check(unit: string | undefined, options: CheckOptions): Promise<void> {
  requireRoot('check');
  requireOneTarget(unit, options);
  const targets = targetsOf(unit, options);
  const machine = thisMachine();
  beginStep(`looking at ${targets.roots.length} processes`);
  const checked = await checkThisMachine(targets, machine);
  const { conclusions, room } = checked;
  const warnings = warningsOf(checked, machine, targets);
  if (options.json === true)
    console.log(toJson(conclusions, machine, warnings, room, machine.config.images.directory));
  else console.log(printCheck(conclusions, styleFor(process.stdout.isTTY), room));
  if (options.json !== true)
    for (const warning of warnings) process.stderr.write(printable(`otherworld: ${warning}\n`));
  process.exitCode = exitStatus(conclusions);
}

/** `otherworld check`: what would become of processes if the kernel died now. */
export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('say what would become of processes if the kernel died now, with every cause at once')
    .argument('[unit]', "a unit of the system's systemd; without anything: all that is protected")
    .option(
      '--pid <pid...>',
      'these processes and their descendants',
      (text: string, before: readonly number[]) => [...before, wholeNumber(text)],
      [] as readonly number[],
    )
    .option('--all', 'every process, as if all were protected')
    .option('--user <user>', "the unit is one of this user's systemd")
    .option('--json', 'print JSON; its fields are in docs/check.md')
    .addHelpText(
      'after',
      `
It reads the running kernel's memory (/proc/kcore), changes nothing and holds nobody up. What changes while it looks is
looked at again. Whose images would not fit into what is free in images.directory, with those of smaller groups, is
refused.

Exit status: 0 all would come back, 1 error (no such unit or process, the kernel does not show its memory), 2 wrong
command line, 3 some are refused, each with its reasons, 4 none is, but of some it depends on the moment.

Examples:
  otherworld check
  otherworld check redis-server
  otherworld check --pid 812 --json`,
    )
    .action(check);
}
