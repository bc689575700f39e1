import type { ProcessGroup, SharingEdge } from '../model/group.ts';
import { momentOf, ofTheMoment, type Refusal, refusalOf, together } from '../model/verdict.ts';
import { UnionFind } from './groups.ts';

/** Why a process does not come back that is tied to some of `culprits`, or belongs together with them. */
export function tiedTo(
  pid: number,
  culprits: readonly { readonly pid: number; readonly comm: string }[],
  ties: readonly SharingEdge[],
): string {
  for (const { pids, why } of ties) {
    const other = pids[0] === pid ? pids[1] : pids[0];
    const culprit = pids.includes(pid) ? culprits.find((process) => process.pid === other) : undefined;
    if (culprit !== undefined) return `is tied to ${other} (${culprit.comm}; ${why}), which cannot come back`;
  }
  return `belongs together with ${culprits.map(({ pid: other, comm }) => `${other} (${comm})`).join(', ')}, which cannot come back`;
}

/** Processes by what they depend on, and the other way round. */
class Dependences {
  readonly #byPid = new Map<number, SharingEdge[]>();

  constructor(edges: readonly SharingEdge[]) {
    for (const edge of edges) {
      for (const pid of edge.pids) {
        const known = this.#byPid.get(pid);
        if (known === undefined) this.#byPid.set(pid, [edge]);
        else known.push(edge);
      }
    }
  }

  of(pid: number): readonly SharingEdge[] {
    return this.#byPid.get(pid) ?? [];
  }

  /** The processes at the other ends. */
  othersOf(pid: number): number[] {
    return this.of(pid).map(({ pids: [a, b] }) => (a === pid ? b : a));
  }
}

/**
 * The same without groups that depend on a process which is refused, or on one that is left out for that.
 * The processes of those have the reason among their findings, too.
 *
 * @param dependences pairs of processes of which each comes back at its own time, and only if the other may
 */
export function withoutDependent(
  {
    groups,
    refused: first,
  }: { readonly groups: readonly ProcessGroup[]; readonly refused: readonly Refusal[] },
  dependences: readonly SharingEdge[],
): { groups: readonly ProcessGroup[]; refused: readonly Refusal[] } {
  const ties = new Dependences(dependences);
  const groupOf = new Map(groups.flatMap((group) => group.processes.map(({ pid }) => [pid, group] as const)));
  const refused = [...first];
  const known = new Map(first.map((one) => [one.pid, one]));
  const left = new Set(groups);
  const leaveOut = (group: ProcessGroup): Refusal[] => {
    const edges = group.processes.flatMap(({ pid }) => ties.of(pid));
    const others = group.processes.flatMap(({ pid }) => ties.othersOf(pid));
    const causes = [...new Set(others)].flatMap((pid) => known.get(pid) ?? []);
    const moment = together(causes.map(momentOf));
    return group.processes.map(({ pid, comm, findings }) => {
      ofTheMoment(findings, moment, () => findings.reasons.push(tiedTo(pid, causes, edges)));
      return refusalOf({ pid, comm }, findings);
    });
  };
  const leaveOutAllOf = (causes: Refusal[]): void => {
    // It grows meanwhile.
    for (const cause of causes) {
      for (const pid of ties.othersOf(cause.pid)) {
        const group = groupOf.get(pid);
        if (group === undefined || !left.delete(group)) continue;
        const added = leaveOut(group);
        for (const one of added) known.set(one.pid, one);
        refused.push(...added);
        causes.push(...added);
      }
    }
  };
  const lasts = (one: Refusal): boolean => momentOf(one) === undefined;
  // Who depends on somebody for whom there is no better moment does not wait for one.
  leaveOutAllOf(first.filter(lasts));
  leaveOutAllOf(first.filter((one) => !lasts(one)));
  return { groups: groups.filter((group) => left.has(group)), refused };
}

/** Groups with those that they depend on: each set comes back as a whole, or not at all. */
export function dependentSets(
  groups: readonly ProcessGroup[],
  dependences: readonly SharingEdge[],
): ProcessGroup[][] {
  const idOf = new Map(groups.flatMap(({ id, processes }) => processes.map(({ pid }) => [pid, id] as const)));
  const sets = new UnionFind();
  for (const { pids } of dependences) {
    const [one, other] = pids.map((pid) => idOf.get(pid));
    if (one !== undefined && other !== undefined) sets.join(one, other);
  }
  return [...Map.groupBy(groups, ({ id }) => sets.find(id)).values()];
}
