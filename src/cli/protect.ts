import type { Command } from 'commander';
import { liveProcesses } from '../arm/live-processes.ts';
import { describeNamesakes, isNamesake, type Matchable, matchesRule } from '../config/match.ts';
import { addRules, describeRule, type ProtectionRule, updateRules } from '../config/protection.ts';
import { type LossKind, lossKinds } from '../config/schema.ts';
import { printable } from '../report/printable.ts';
import { UsageError } from './arguments.ts';
import { requireRoot } from './root.ts';
import { namedTargets, requireTarget, type TargetOptions, targetOptions } from './rule-targets.ts';

/** Why a process cannot be protected by its pid; undefined if it can. */
function pidProblem(pid: number, processes: ReadonlyMap<number, Matchable>): string | undefined {
  if (pid === 1) {
    return 'process 1 cannot be protected: the crash world has its own; name services with --unit';
  }
  if (processes.has(pid)) return undefined;
  return `there is no process ${pid} (kernel threads and zombies do not count): it is not protected`;
}

/** Rules for the processes that there are, and a sentence for each that there is not. */
export function pidRules(
  pids: readonly number[],
  processes: ReadonlyMap<number, Matchable>,
): { rules: ProtectionRule[]; problems: string[] } {
  const problems: string[] = [];
  const rules = [...new Set(pids)].flatMap((pid): ProtectionRule[] => {
    const problem = pidProblem(pid, processes);
    if (problem !== undefined) problems.push(problem);
    const process = problem === undefined ? processes.get(pid) : undefined;
    return process === undefined
      ? []
      : [{ kind: 'pid', pid, startTicks: process.startTicks, comm: process.comm }];
  });
  return { rules, problems };
}

interface ProtectOptions extends TargetOptions {
  readonly allowLoss?: LossKind[];
}

/** The kinds of a list like `connections`, each once. @throws UsageError if there is no such kind */
export function parseLosses(text: string, before: readonly LossKind[] = []): LossKind[] {
  const found = text.split(',').map((name) => {
    const kind = lossKinds.find((one) => one === name.trim());
    if (kind === undefined)
      throw new UsageError(
        `--allow-loss ${text}: there is no loss '${name}'; there are ${lossKinds.join(', ')}`,
      );
    return kind;
  });
  return [...new Set([...before, ...found])];
}

async function protect(options: ProtectOptions): Promise<void> {
  requireRoot('protect');
  requireTarget(options);
  const named = namedTargets(options);
  const processes = liveProcesses();
  const { rules, problems } = pidRules(options.pid, new Map(processes.map((one) => [one.pid, one])));
  const { allowLoss } = options;
  const fresh = [...rules, ...named].map((rule) => (allowLoss === undefined ? rule : { ...rule, allowLoss }));
  if (fresh.length > 0) problems.push(...updateRules((saved) => addRules(saved, fresh)).problems);
  for (const rule of fresh) console.log(printable(`protected: ${found(rule, processes)}`));
  for (const problem of problems) console.error(printable(`otherworld: ${problem}`));
  if (problems.length > 0) process.exitCode = 1;
  const pids = processes.filter((one) => fresh.some((rule) => matchesRule(rule, one))).map(({ pid }) => pid);
  const { checkInBrief, machineOnce, roomInBrief } = await import('../check/index.ts');
  const machine = machineOnce();
  for (const line of [...roomInBrief(machine), ...(await checkInBrief(pids, machine))]) console.log(line);
}

/** A rule with what it holds for now. */
function found(rule: ProtectionRule, processes: readonly Matchable[]): string {
  const matching = processes.filter((process) => matchesRule(rule, process));
  const names = matching.map(({ pid, comm }) => `${comm} (${pid})`).join(', ');
  if (names !== '') return `${describeRule(rule)}: ${names}`;
  const others = describeNamesakes(
    rule,
    processes.filter((process) => isNamesake(rule, process)),
  );
  return `${describeRule(rule)}: no such process now${others === '' ? '' : ` (${others})`}`;
}

/** `otherworld protect` */
export function registerProtect(program: Command): void {
  targetOptions(program.command('protect'))
    .description(
      'bring these processes and their descendants back after a panic; holds across reboots. Exit status 1 if one of them cannot be protected; the others are protected',
    )
    .option(
      '--allow-loss <kinds>',
      `what they may lose, by commas, instead of not coming back: ${lossKinds.join(', ')} (a TCP connection that cannot be kept is reset). Without it a rule that allowed this no longer does`,
      parseLosses,
    )
    .action(protect);
}
