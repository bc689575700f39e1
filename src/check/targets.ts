import { runProgram } from '../arm/command.ts';
import { ArmError } from '../arm/errors.ts';
import { liveProcess, liveProcesses } from '../arm/live-processes.ts';
import { describeNamesakes, isNamesake, type Matchable, matchesRule } from '../config/match.ts';
import {
  configuredRules,
  describeRule,
  loadRules,
  namedRules,
  type ProtectionRule,
} from '../config/protection.ts';
import type { Config } from '../config/schema.ts';
import { processStat } from '../system/proc.ts';
import { findUser, type User } from '../system/users.ts';

/** Processes that are to be checked. */
export interface Targets {
  readonly roots: readonly number[];
  readonly includeDescendants: boolean;
  /** What was looked for and is not there: sentences. */
  readonly problems: readonly string[];
}

/** There is nothing to check; the message says why. */
export class NothingToCheckError extends Error {
  override readonly name = 'NothingToCheckError';
}

/** What the rules hold now. @throws NothingToCheckError if that is nothing */
export function protectedTargets(config: Config): Targets {
  const [configured, saved] = [configuredRules(config, findUser), loadRules()];
  const rules = [...configured.rules, ...saved.rules];
  const problems = [...configured.problems, ...saved.problems];
  if (rules.length === 0) {
    const why = problems.length === 0 ? '' : ` (${problems.join('; ')})`;
    throw new NothingToCheckError(
      `nothing is protected${why}: name a unit, a process with --pid, or --all; otherworld protect makes a rule`,
    );
  }
  const found = byRules(rules, liveProcesses());
  if (found.roots.length === 0) throw new NothingToCheckError(found.problems.join('; '));
  return { ...found, problems: [...problems, ...found.problems] };
}

/** The processes of a unit. @throws NothingToCheckError if there is no such unit, or it has no process now */
export function unitTargets(unit: string, user: User | undefined): Targets {
  const rules = namedRules({ commands: [], units: [unit] }, user);
  const found = byRules(rules, liveProcesses());
  if (found.roots.length > 0) return found;
  const [rule] = rules;
  const name = rule?.kind === 'unit' ? rule.unit : unit;
  throw new NothingToCheckError(
    user === undefined && isUnknown(name) ? `there is no unit ${name}` : found.problems.join('; '),
  );
}

/** Whether systemd says that it knows of no such unit. */
function isUnknown(unit: string): boolean {
  try {
    return (
      runProgram('systemctl', ['show', '--property=LoadState', '--value', '--', unit]).trim() === 'not-found'
    );
  } catch (error) {
    if (!(error instanceof ArmError)) throw error;
    return false;
  }
}

/** Why a process cannot be asked for; undefined if it can. */
function pidProblem(pid: number): string | undefined {
  if (pid === 1) return 'process 1 does not come back: the crash world has its own';
  if (pid === process.pid) return `process ${pid} is the one that checks`;
  const stat = processStat(pid);
  if (stat === undefined) return `there is no process ${pid}`;
  if (stat.isZombie) return `process ${pid} (${stat.comm}) has ended: it is a zombie`;
  return liveProcess(pid) === undefined ? `process ${pid} (${stat.comm}) is a kernel thread` : undefined;
}

/** Processes by their numbers. @throws NothingToCheckError if one of them cannot be asked for */
export function pidTargets(pids: readonly number[]): Targets {
  for (const pid of pids) {
    const problem = pidProblem(pid);
    if (problem !== undefined) throw new NothingToCheckError(problem);
  }
  return { roots: [...new Set(pids)], includeDescendants: true, problems: [] };
}

/**
 * Every process of the system but process 1, as if all of them were protected: this one too, so that what
 * others share with it is known.
 */
export function allTargets(): Targets {
  const roots = liveProcesses()
    .map(({ pid }) => pid)
    .filter((pid) => pid !== 1);
  return { roots, includeDescendants: false, problems: [] };
}

function byRules(rules: readonly ProtectionRule[], processes: readonly Matchable[]): Targets {
  const roots = processes.filter((one) => rules.some((rule) => matchesRule(rule, one))).map(({ pid }) => pid);
  const unmatched = rules.filter((rule) => !processes.some((one) => matchesRule(rule, one)));
  const problems = unmatched.map((rule) => {
    const others = describeNamesakes(
      rule,
      processes.filter((one) => isNamesake(rule, one)),
    );
    return `${describeRule(rule)}: no such process now${others === '' ? '' : ` (${others})`}`;
  });
  return { roots, includeDescendants: true, problems };
}
