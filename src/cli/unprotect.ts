import type { Command } from 'commander';
import { CONFIG_PATH } from '../config/config.ts';
import {
  describeRule,
  type RuleTarget,
  removeRules,
  targetKey,
  type UpdatedRules,
  updateRules,
} from '../config/protection.ts';
import { printable } from '../report/printable.ts';
import { UsageError } from './arguments.ts';
import { requireRoot } from './root.ts';
import { namedTargets, requireTarget, type TargetOptions, targetOptions } from './rule-targets.ts';

/**
 * Throws a UsageError if `--all` stands beside something that it would take back as well: one of the two is
 * not meant.
 */
export function requireAllAlone({ pid, command, unit, user }: TargetOptions): void {
  if (pid.length + command.length + unit.length === 0 && user === undefined) return;
  throw new UsageError('--all takes back every rule, whosever it is: name nothing beside it');
}

function unprotect(options: TargetOptions & { all?: boolean }): void {
  requireRoot('unprotect');
  if (options.all) {
    requireAllAlone(options);
    const updated = updateRules(() => []);
    console.log(`removed: ${updated.before.length === 1 ? '1 rule' : `${updated.before.length} rules`}`);
    complain(updated.problems);
    return;
  }
  requireTarget(options);
  const targets: RuleTarget[] = [
    ...options.pid.map((pid): RuleTarget => ({ kind: 'pid', pid })),
    ...namedTargets(options),
  ];
  const updated = updateRules((rules) => removeRules(rules, targets));
  const { there, missing } = partition(targets, updated);
  for (const target of there) console.log(printable(`no longer protected: ${describeRule(target)}`));
  complain([
    ...missing.map(
      (target) =>
        `there is no rule ${describeRule(target)} of protect; those of ${CONFIG_PATH} are changed there`,
    ),
    ...updated.problems,
  ]);
}

function partition(
  targets: readonly RuleTarget[],
  { before }: UpdatedRules,
): { there: RuleTarget[]; missing: RuleTarget[] } {
  const known = new Set(before.map(targetKey));
  const isThere = (target: RuleTarget): boolean => known.has(targetKey(target));
  return { there: targets.filter(isThere), missing: targets.filter((target) => !isThere(target)) };
}

function complain(problems: readonly string[]): void {
  for (const problem of problems) console.error(printable(`otherworld: ${problem}`));
  if (problems.length > 0) process.exitCode = 1;
}

/** `otherworld unprotect` */
export function registerUnprotect(program: Command): void {
  targetOptions(program.command('unprotect'))
    .description(
      'remove rules that protect made. Exit status 1 if there is no such rule; the others are removed',
    )
    .option('--all', 'every rule')
    .action(unprotect);
}
