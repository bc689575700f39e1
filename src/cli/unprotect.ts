import type { Command } from 'commander';
import { CONFIG_PATH } from '../config/config.ts';
import {
  describeRule,
  loadRules,
  type RuleTarget,
  removeRule,
  saveRules,
  unitName,
} from '../config/protection.ts';
import { requireTarget, type TargetOptions, targetOptions } from './protect.ts';
import { requireRoot } from './root.ts';

function unprotect(options: TargetOptions & { all?: boolean }): void {
  requireRoot('unprotect');
  const before = loadRules();
  if (options.all) {
    saveRules([]);
    console.log(`${before.length} rules removed`);
    return;
  }
  requireTarget(options);
  const targets: RuleTarget[] = [
    ...options.pid.map((pid): RuleTarget => ({ kind: 'pid', pid })),
    ...options.command.map((name): RuleTarget => ({ kind: 'command', name })),
    ...options.unit.map((unit): RuleTarget => ({ kind: 'unit', unit: unitName(unit) })),
  ];
  for (const target of targets) {
    if (removeRule(before, target).length === before.length)
      throw new Error(
        `there is no rule ${describeRule(target)} of protect; those of ${CONFIG_PATH} are changed there`,
      );
  }
  saveRules(targets.reduce((rules, target) => removeRule(rules, target), before));
  for (const target of targets) console.log(`no longer protected: ${describeRule(target)}`);
}

/** `otherworld unprotect` */
export function registerUnprotect(program: Command): void {
  targetOptions(program.command('unprotect'))
    .description('take back what protect said')
    .option('--all', 'every rule')
    .action(unprotect);
}
