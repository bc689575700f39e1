import { type Matchable, matchesRule } from './match.ts';
import type { ProtectionRule } from './protection.ts';
import { type Config, type LossKind, lossKinds } from './schema.ts';

/** A process with its place among the others. */
export interface Descendant extends Matchable {
  /** Undefined if it has none that is known. */
  readonly parentPid: number | undefined;
}

/** What the configuration says that every protected process may lose. */
export function generalLosses({ losses }: Pick<Config, 'losses'>): LossKind[] {
  return lossKinds.filter((kind) => losses[kind] === 'break');
}

/**
 * What processes may lose instead of not coming back: what the configuration says of all, and what rules say
 * of the processes that they hold and of their descendants.
 *
 * @param processes all that there are
 * @returns the kinds by PID
 */
export function allowedLosses(
  config: Pick<Config, 'losses'>,
  rules: readonly ProtectionRule[],
  processes: readonly Descendant[],
): (pid: number) => ReadonlySet<LossKind> {
  const general = generalLosses(config);
  const allowing = rules.filter(({ allowLoss = [] }) => allowLoss.length > 0);
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  const own = (process: Descendant): LossKind[] =>
    allowing.filter((rule) => matchesRule(rule, process)).flatMap(({ allowLoss = [] }) => allowLoss);
  const known = new Map<number, ReadonlySet<LossKind>>();
  return (pid) => {
    const found = known.get(pid);
    if (found !== undefined) return found;
    const kinds = new Set(general);
    const seen = new Set<number>();
    for (let at = byPid.get(pid); at !== undefined && !seen.has(at.pid); at = byPid.get(at.parentPid ?? 0)) {
      seen.add(at.pid);
      for (const kind of own(at)) kinds.add(kind);
    }
    known.set(pid, kinds);
    return kinds;
  };
}
