import type { Command } from 'commander';
import { liveProcess, liveProcesses } from '../arm/live-processes.ts';
import { matchesRule } from '../config/match.ts';
import {
  addRule,
  describeRule,
  loadRules,
  type ProtectionRule,
  saveRules,
  unitName,
} from '../config/protection.ts';
import { printable } from '../report/printable.ts';
import { wholeNumber } from './arguments.ts';
import { requireRoot } from './root.ts';

/** Options that name what a rule is about; any of them may be given several times. */
export interface TargetOptions {
  pid: number[];
  command: string[];
  unit: string[];
}

const collect = (value: string, previous: string[]): string[] => [...previous, value];

/** Adds the options to a command. */
export function targetOptions(command: Command): Command {
  return command
    .option(
      '--pid <pid>',
      'one process',
      (text: string, previous: number[]) => [...previous, wholeNumber(text)],
      [] as number[],
    )
    .option(
      '--command <name>',
      "every process of this name, or whose program's file has it",
      collect,
      [] as string[],
    )
    .option('--unit <unit>', 'every process of this systemd unit', collect, [] as string[]);
}

/** The exit status for a wrong use of a command. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  readonly exitStatus = 2;
}

/** Throws a UsageError if no target is named. */
export function requireTarget(options: TargetOptions): void {
  if (options.pid.length + options.command.length + options.unit.length === 0) {
    throw new UsageError('say what: --pid PID, --command NAME or --unit UNIT');
  }
}

function pidRule(pid: number): ProtectionRule {
  if (pid === 1)
    throw new Error('process 1 cannot be protected: the crash world has its own; name services with --unit');
  const process = liveProcess(pid);
  if (process === undefined)
    throw new Error(`there is no process ${pid} (kernel threads and zombies do not count)`);
  return { kind: 'pid', pid, startTicks: process.startTicks, comm: process.comm };
}

function protect(options: TargetOptions): void {
  requireRoot('protect');
  requireTarget(options);
  const fresh: ProtectionRule[] = [
    ...options.pid.map(pidRule),
    ...options.command.map((name): ProtectionRule => ({ kind: 'command', name })),
    ...options.unit.map((unit): ProtectionRule => ({ kind: 'unit', unit: unitName(unit) })),
  ];
  saveRules(fresh.reduce(addRule, loadRules()));
  const processes = liveProcesses();
  for (const rule of fresh) {
    const found = processes.filter((process) => matchesRule(rule, process));
    const names = found.map(({ pid, comm }) => `${comm} (${pid})`).join(', ');
    console.log(printable(`protected: ${describeRule(rule)}: ${names || 'no such process now'}`));
  }
}

/** `otherworld protect` */
export function registerProtect(program: Command): void {
  targetOptions(program.command('protect'))
    .description('bring these processes and their descendants back after a panic; holds across reboots')
    .action(protect);
}
