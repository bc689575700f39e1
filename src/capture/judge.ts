import type { CaptureResult, ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';
import { momentOf, ofTheMoment, type Refusal, refusalOf, together } from '../model/verdict.ts';
import { attempt } from './attempt.ts';
import { tiedTo, withoutDependent } from './dependent.ts';
import { RingBudget } from './files/io-uring-state.ts';
import type { FreePids } from './free-pids.ts';
import { groupProcesses, type Member } from './groups.ts';
import { procedureReasons } from './procedure/in-sandbox.ts';
import type { ProcessSource } from './process.ts';
import { captureSandbox } from './sandbox.ts';
import type { Home, Homes } from './sandboxes.ts';

/** A process that cannot be captured: those who belong together with it cannot come back either. */
export interface LostProcess extends Member {
  readonly isLost: true;
}

export type Candidate = Process | LostProcess;

export function isWhole(candidate: Candidate): candidate is Process {
  return !('isLost' in candidate);
}

/** What else decides. */
export interface Terms {
  /**
   * Groups are captured in spite of reasons of the moment, which are then in their processes' findings: of a
   * living kernel.
   */
  readonly inSpiteOfMoments?: boolean;
  /** How long everything that is done after the panic may take; without it, there is no limit. */
  readonly timeLimitMinutes?: number;
}

export type JudgeSource = ProcessSource & { readonly freePids: FreePids; readonly homes: Homes };

/** What was decided of the captured processes. */
export interface Judged extends Omit<CaptureResult, 'notes' | 'ended' | 'dependences'> {
  /**
   * The pids of those that were captured, are refused for reasons of their own, and that nothing ties to
   * another one.
   */
  readonly alone: readonly number[];
}

/** Whether it is because of this one that its group cannot come back. */
export function isCulprit(candidate: Candidate, { inSpiteOfMoments = false }: Terms): boolean {
  const { findings } = candidate;
  if (findings.reasons.length === 0) return false;
  return !(inSpiteOfMoments && isWhole(candidate) && momentOf(findings) !== undefined);
}

/**
 * Splits groups into those that can come back and those with a process that cannot, or that depends on one
 * that cannot.
 * @param budget of all groups of a dump, if they are judged more than once
 */
export function judge(
  source: JudgeSource,
  candidates: readonly Candidate[],
  terms: Terms,
  budget = new RingBudget(terms.timeLimitMinutes),
): Judged {
  const { dependences } = source.files;
  const judged = judgeGroups(source, candidates, terms, budget);
  if (dependences.length === 0) return judged;
  const known = new Set(candidates.map(({ pid }) => pid));
  const ties = new Map(judged.ties);
  for (const tie of dependences.filter(({ pids }) => pids.every((pid) => known.has(pid))))
    for (const pid of tie.pids) ties.set(pid, [...(ties.get(pid) ?? []), tie]);
  const tied = new Set(dependences.flatMap(({ pids }) => pids));
  const alone = judged.alone.filter((pid) => !tied.has(pid));
  return { ...withoutDependent(judged, dependences), ties, alone };
}

function judgeGroups(
  source: JudgeSource,
  candidates: readonly Candidate[],
  terms: Terms,
  budget: RingBudget,
): Judged {
  const { groups, ties } = groupProcesses(candidates, source.files.edges);
  const refused: Refusal[] = [];
  const kept: ProcessGroup[] = [];
  const alone: number[] = [];
  for (const members of groups) {
    const culprits = members.filter((member) => isCulprit(member, terms));
    const processes = members.filter(isWhole);
    const pids = new Set(members.map(({ pid }) => pid));
    const refuse = (reason: string) => {
      for (const { pid, comm } of members) refused.push({ pid, comm, reasons: [reason] });
    };
    const home = source.homes.of(pids);
    if (home === 'several') {
      // Besides what each of them is refused for.
      const reason = source.homes.reason(pids);
      for (const member of members) {
        member.findings.reasons.push(reason);
        refused.push(refusalOf(member, member.findings));
      }
      continue;
    }
    if (culprits.length === 0 && processes.length === members.length) {
      const captured = attempt(refuse, () => groupParts(source, pids, home));
      if (captured === undefined) continue;
      const id = members[0]?.pid ?? 0;
      const group = { id, freePid: source.freePids.next(), processes, ...captured, clocks: source.clocks };
      const called = procedureReasons(source.kernel, group);
      if (called.size > 0) {
        refused.push(...withReasons(members, called, ties));
        continue;
      }
      const ringSeconds = secondsForRings(source, processes);
      const late = budget.take(ringSeconds);
      if (late === undefined) kept.push(ringSeconds === 0 ? group : { ...group, ringSeconds });
      else refuse(late);
      continue;
    }
    // Who is tied to others comes back when these do.
    const moment = together(culprits.map(({ findings }) => momentOf(findings)));
    for (const member of members) {
      const { pid, findings } = member;
      if (!culprits.includes(member))
        ofTheMoment(findings, moment, () =>
          findings.reasons.push(tiedTo(pid, culprits, ties.get(pid) ?? [])),
        );
      refused.push(refusalOf(member, findings));
      // What cannot be read of it in the first place is damage, wherever: there is no doing without that.
      if (members.length === 1 && isWhole(member)) alone.push(pid);
    }
  }
  return { groups: kept, refused, ties, alone };
}

/** Its processes make their rings one after the other. */
function secondsForRings({ files }: ProcessSource, processes: readonly Process[]): number {
  return processes.reduce((sum, { pid, memory }) => sum + files.ringSeconds(pid, memory?.vmas ?? []), 0);
}

/** What a group has besides its processes. */
function groupParts(
  { kernel, files }: ProcessSource,
  pids: ReadonlySet<number>,
  home: Home | undefined,
): Omit<ProcessGroup, 'id' | 'freePid' | 'processes' | 'clocks'> {
  const group = files.group(pids);
  if (home === undefined) return group;
  const { sandbox, files: own } = captureSandbox(kernel, home, pids);
  const { directoriesToMake, filesToMake, ...others } = group.files;
  const made = {
    directoriesToMake: byPath([...directoriesToMake, ...own.directoriesToMake]),
    filesToMake: byPath([...filesToMake, ...own.filesToMake]),
  };
  return { ...group, files: { ...others, ...made }, sandbox };
}

function byPath<T extends { readonly path: string }>(items: readonly T[]): T[] {
  const unique = [...new Map(items.map((item) => [item.path, item])).values()];
  return unique.toSorted((a, b) => a.path.length - b.path.length);
}

/** Refuses members for the reasons that some of them have, and the others because of these. */
function withReasons(
  members: readonly Member[],
  reasons: ReadonlyMap<number, string>,
  ties: CaptureResult['ties'],
): Refusal[] {
  const culprits = members.filter(({ pid }) => reasons.has(pid));
  return members.map(({ pid, comm }) => {
    const reason = reasons.get(pid) ?? tiedTo(pid, culprits, ties.get(pid) ?? []);
    return { pid, comm, reasons: [reason] };
  });
}
