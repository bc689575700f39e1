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
  unitName,
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
  const processes = liveProcesses();
  const found = byRules(rules, processes);
  if (found.roots.length > 0) return found;
  const [rule] = rules;
  const name = unitName(unit);
  const others = rule === undefined ? '' : namesakesOf(rule, processes);
  throw new NothingToCheckError(
    emptyUnit(name, user, user === undefined ? isKnown(name) : undefined) + others,
  );
}

/**
 * Why nothing is found of a unit, in words of who named it without an option.
 * @param known whether its manager knows of it; undefined if that cannot be told
 */
export function emptyUnit(
  name: string,
  user: Pick<User, 'name'> | undefined,
  known: boolean | undefined,
): string {
  const unit = user === undefined ? `unit ${name}` : `unit ${name} of ${user.name}`;
  if (known === undefined) return `there is no ${unit}, or it has no process now`;
  return known ? `${unit} has no process now` : `there is no ${unit}`;
}

/** Whether the system's manager knows of a unit; undefined if there is none that says so. */
function isKnown(unit: string): boolean | undefined {
  try {
    const state = runProgram('systemctl', ['show', '--property=LoadState', '--value', '--', unit]).trim();
    return state === '' ? undefined : state !== 'not-found';
  } catch (error) {
    if (!(error instanceof ArmError)) throw error;
    return undefined;
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
  const problems = unmatched.map(
    (rule) => `${describeRule(rule)}: no such process now${namesakesOf(rule, processes)}`,
  );
  return { roots, includeDescendants: true, problems };
}

/** Who has a rule's name and is not meant, in brackets; empty if nobody has. */
function namesakesOf(rule: ProtectionRule, processes: readonly Matchable[]): string {
  const others = describeNamesakes(
    rule,
    processes.filter((one) => isNamesake(rule, one)),
  );
  return others === '' ? '' : ` (${others})`;
}
