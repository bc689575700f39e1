import { PROTECTION_PATH } from '../../config/paths.ts';
import { addRules, type ProtectionRule, removeRules, updateRules } from '../../config/protection.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { processStat } from '../../system/proc.ts';

type PidRule = Extract<ProtectionRule, { kind: 'pid' }>;

/**
 * Rules for a pid go on to hold for the process that was brought back under it; the rule of one that has
 * ended since goes, with a note. No process costs the rule of another.
 * @param startTicksOf field 22 of /proc/PID/stat; undefined for a process that has ended
 */
export function renewPidRules(
  report: Pick<IncidentReport, 'processes' | 'notes' | 'errors'>,
  path: string = PROTECTION_PATH,
  startTicksOf: (pid: number) => number | undefined = startTicks,
): void {
  const back = new Set(
    report.processes.filter(({ outcome }) => outcome === 'restored').map(({ pid }) => pid),
  );
  // Another process may have its pid by now.
  const gone = new Set(report.processes.filter(({ ended }) => ended !== undefined).map(({ pid }) => pid));
  const isBack = (rule: ProtectionRule): rule is PidRule => rule.kind === 'pid' && back.has(rule.pid);
  const { problems } = updateRules((rules) => {
    const renewed: PidRule[] = [];
    const ended: PidRule[] = [];
    for (const rule of rules.filter(isBack)) {
      const ticks = gone.has(rule.pid) ? undefined : startTicksOf(rule.pid);
      if (ticks === undefined) ended.push(rule);
      else renewed.push({ ...rule, startTicks: ticks });
    }
    report.notes.push(
      ...ended.map(({ pid, comm }) => `the rule --pid ${pid} [${comm}] goes: that process has ended since`),
    );
    return addRules(removeRules(rules, ended), renewed);
  }, path);
  report.errors.push(...problems);
}

/** Field 22 of /proc/PID/stat. Undefined if there is no such process any more. */
export function startTicks(pid: number): number | undefined {
  const stat = processStat(pid);
  return stat === undefined || stat.isZombie ? undefined : stat.startTicks;
}
