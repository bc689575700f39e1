import { tieOf } from '../../capture/groups.ts';
import { describeRule, type ProtectionRule } from '../../config/protection.ts';
import { serviceOf } from '../../config/service-units.ts';
import type { RestoreSeconds } from '../../criu/restore/index.ts';
import type { EndedProcess, ProcessGroup, SharingEdge } from '../../model/group.ts';
import type { Process } from '../../model/process.ts';
import { fateOf, type Refusal, verdictOf } from '../../model/verdict.ts';
import type { IncidentReport, ProcessReport } from '../../report/schema.ts';
import type { Candidate, Selected } from '../processes/select.ts';

/** What the selection knows of the processes. */
export interface Selection {
  readonly selected: readonly Selected[];
  readonly candidates: readonly Candidate[];
  /** Those that were read. */
  readonly rules: readonly ProtectionRule[];
}

function identity(pid: number, selection: Selection): Partial<ProcessReport> {
  const candidate = selection.candidates.find((other) => other.pid === pid);
  const rule = selection.selected.find((other) => other.candidate.pid === pid)?.rule;
  const unit = serviceOf(candidate?.cgroup);
  return {
    ...shown(candidate),
    ...(rule === undefined ? {} : { protectedBy: describeRule(rule) }),
    ...(unit === undefined ? {} : { unit }),
  };
}

/** Enters what ties each process to others of the incident. */
export function noteTies(report: IncidentReport, ties: ReadonlyMap<number, readonly SharingEdge[]>): void {
  for (const process of report.processes) {
    const own = ties.get(process.pid) ?? [];
    if (own.length > 0) process.ties = own.map((edge) => tieOf(process.pid, edge));
  }
}

/** Enters the processes that nobody asked for. */
export function noteUnprotected(report: IncidentReport, candidates: readonly Candidate[]): void {
  const known = new Set(report.processes.map(({ pid }) => pid));
  report.unprotected = candidates
    .filter(({ pid }) => !known.has(pid))
    .map(({ pid, comm }) => ({ pid, comm }))
    .toSorted((a, b) => a.pid - b.pid);
}

/** By what people know a process, besides its name. */
function shown(candidate: Candidate | undefined): Pick<ProcessReport, 'exe' | 'commandLine'> {
  const { exe, commandLine } = candidate ?? {};
  return {
    ...(exe === undefined ? {} : { exe }),
    ...(commandLine === undefined ? {} : { commandLine }),
  };
}

/** The report's entry of a process that a rule names, until it is captured or refused. */
export function selectedReport({ candidate, rule }: Selected): ProcessReport {
  const { pid, comm } = candidate;
  const unit = serviceOf(candidate.cgroup);
  return {
    pid,
    comm,
    ...shown(candidate),
    protectedBy: describeRule(rule),
    ...(unit === undefined ? {} : { unit }),
    outcome: 'pending',
    ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [] },
  };
}

/** The report's entry of a process that was captured and may come back. */
export function capturedReport(process: Process, group: ProcessGroup, selection: Selection): ProcessReport {
  const { checks, repairs, inDoubt, notes } = process.findings;
  const { refusedFor } = process.procedureAlone ?? {};
  const losses = [...process.findings.unexpected, ...process.findings.losses];
  return {
    pid: process.pid,
    comm: process.comm,
    ...identity(process.pid, selection),
    group: group.id,
    verdict: verdictOf(process.findings),
    outcome: 'pending',
    fate: fateOf(process.findings),
    reasons: [],
    checks: [...checks],
    repairs: [...repairs],
    inDoubt: [...inDoubt],
    notes: [...notes],
    ...(refusedFor === undefined ? {} : { refusedFor: [...refusedFor] }),
    ...(losses.length === 0 ? {} : { losses: losses.map(({ kind, what }) => ({ kind, what })) }),
  };
}

/** The report's entry of a process that is not brought back. */
export function refusedReport(refusal: Refusal, selection: Selection): ProcessReport {
  const candidate = selection.candidates.find((other) => other.pid === refusal.pid);
  return {
    pid: refusal.pid,
    comm: refusal.comm || candidate?.comm || '?',
    ...identity(refusal.pid, selection),
    verdict: 'refused',
    outcome: 'refused',
    fate: 'refused',
    reasons: [...refusal.reasons],
    checks: [],
    repairs: [],
    inDoubt: [],
    notes: [],
  };
}

/** The report's entry of a process that was ending, and is gone. */
export function endedReport({ pid, comm, notes }: EndedProcess, selection: Selection): ProcessReport {
  return {
    pid,
    comm,
    ...identity(pid, selection),
    outcome: 'ended',
    ...{ reasons: [], checks: [], repairs: [], inDoubt: [], notes: [...notes] },
  };
}

/**
 * Processes of which a stage that failed, or did not end, had still to decide.
 * @param later groups that are still to be restored
 */
export function concludePending(
  report: IncidentReport,
  reason: string,
  later: ReadonlySet<number> = new Set(),
): void {
  for (const process of report.processes) {
    if (process.outcome !== 'pending' || later.has(process.group ?? -1)) continue;
    process.outcome = 'failed';
    process.reasons.push(reason);
  }
}

/** Sets the outcome of all processes of a group. */
export function concludeGroup(
  report: Pick<IncidentReport, 'processes'>,
  group: number,
  outcome: 'restored' | 'failed',
  reasons: readonly string[],
): void {
  for (const process of report.processes) {
    if (process.group !== group) continue;
    process.outcome = outcome;
    process.reasons.push(...reasons);
  }
}

/** Enters how long it took until the processes of a group were as they will be. */
export function noteRestoreSeconds(
  { groups }: Pick<IncidentReport, 'groups'>,
  id: number,
  { criu, all }: RestoreSeconds,
): void {
  const entry = groups?.find(({ group }) => group === id);
  if (entry !== undefined) entry.restoreSeconds = { criu, all };
}
