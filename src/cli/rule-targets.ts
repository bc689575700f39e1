import type { Command } from 'commander';
import { namedRules, type ProtectionRule } from '../config/protection.ts';
import { findUser } from '../system/users.ts';
import { UsageError, wholeNumber } from './arguments.ts';

/**
 * Options that name what a rule is about; any but `user` may be given several times, and with several values.
 */
export interface TargetOptions {
  pid: number[];
  command: string[];
  unit: string[];
  user?: string;
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** Adds the options to a command. */
export function targetOptions(command: Command): Command {
  return command
    .option(
      '--pid <pid...>',
      'processes',
      (text: string, previous: number[]) => [...previous, wholeNumber(text)],
      [] as number[],
    )
    .option(
      '--command <name...>',
      "root's processes that have this name, or whose program file has it",
      collect,
      [] as string[],
    )
    .option('--unit <unit...>', "every process of this unit of the system's systemd", collect, [] as string[])
    .option(
      '--user <user>',
      "with --command and --unit: this user's processes, and units of this user's systemd",
    );
}

/**
 * Throws a UsageError if no target is named, a name is empty, or a user is named without anything of the
 * user's.
 */
export function requireTarget({ pid, command, unit, user }: TargetOptions): void {
  const names = command.length + unit.length;
  if (pid.length + names === 0) throw new UsageError('say what: --pid PID, --command NAME or --unit UNIT');
  if ([...command, ...unit].includes('')) {
    throw new UsageError('a name is empty: --command NAME, --unit UNIT');
  }
  if (user !== undefined && names === 0) throw new UsageError('--user goes with --command or --unit');
}

/** The rules for what has a name. @throws UsageError if there is no such user */
export function namedTargets({ command, unit, user }: TargetOptions): ProtectionRule[] {
  const found = user === undefined ? undefined : findUser(user);
  if (user !== undefined && found === undefined) throw new UsageError(`this system has no user ${user}`);
  return namedRules({ commands: command, units: unit }, found);
}
