import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { INCIDENTS_DIRECTORY } from '../config/paths.ts';
import { type LogExtract, logLinesAbout } from '../criu/restore/restore-log.ts';
import { codeOf } from '../system/thrown.ts';
import { groupReasons } from './causes.ts';
import { keptLog } from './images.ts';
import { IncidentError } from './incident.ts';
import { standingAgainst } from './print.ts';
import type { IncidentReport, ProcessReport } from './schema.ts';

/** Another process that the one in question came back with, or did not. */
export interface Relative {
  readonly pid: number;
  readonly comm: string;
  readonly outcome: ProcessReport['outcome'] | undefined;
  /** What the two share; none if a third one is between them. */
  readonly ties: readonly string[];
}

/** What CRIU wrote of a restore. */
export interface CriuSaid extends LogExtract {
  /** Path of the log. */
  readonly log: string;
}

/** Everything about one process of an incident that a rule named, or an ancestor of which one named. */
export interface ProtectedWhy {
  readonly incident: string;
  readonly state: IncidentReport['state'];
  readonly process: ProcessReport;
  /**
   * The ancestor with which it came along, of a process that no rule names; undefined if that is not on
   * record.
   */
  readonly ancestor: Pick<ProcessReport, 'pid' | 'comm' | 'protectedBy'> | undefined;
  /** It ran on the CPU that panicked. */
  readonly wasOnPanickingCpu: boolean;
  readonly relatives: readonly Relative[];
  /** What was made and set for the group as a whole. */
  readonly groupPlan: readonly string[];
  /** Undefined if no log is kept. */
  readonly criu: CriuSaid | undefined;
  /** What can be done. */
  readonly advice: readonly string[];
}

/** A process that was there and that nobody had asked for. */
export interface UnprotectedWhy {
  readonly incident: string;
  readonly state: IncidentReport['state'];
  readonly unprotected: { readonly pid: number; readonly comm: string };
  /** Rules that found nothing: one of them may have meant it. */
  readonly unmatchedRules: readonly string[];
}

export type Why = ProtectedWhy | UnprotectedWhy;

/** How many processes an error lists. */
const MOST_LISTED = 20;

function noSuchProcess({ id, processes, unprotected }: IncidentReport, pid: number): IncidentError {
  const known = processes.slice(0, MOST_LISTED).map((process) => `${process.pid} (${process.comm})`);
  const more = processes.length > MOST_LISTED ? ` and ${processes.length - MOST_LISTED} more` : '';
  const there = known.length === 0 ? 'there is none' : `there are ${known.join(', ')}${more}`;
  const unknown =
    unprotected === undefined ? '; which processes no rule named is not on record for this incident' : '';
  return new IncidentError(`incident ${id} has no protected process ${pid}: ${there}${unknown}`);
}

/** The nearest ancestor that a rule names, as far as ties lead to it. */
function ancestorOf(process: ProcessReport, { processes }: IncidentReport): ProtectedWhy['ancestor'] {
  const seen = new Set<number>();
  let at: ProcessReport | undefined = process;
  while (at !== undefined && at.protectedBy === undefined && !seen.has(at.pid)) {
    seen.add(at.pid);
    const parent: number | undefined = at.ties?.find(({ why }) => why === 'its parent')?.with;
    at = processes.find(({ pid }) => pid === parent);
  }
  if (at === undefined || at === process || at.protectedBy === undefined) return undefined;
  return { pid: at.pid, comm: at.comm, protectedBy: at.protectedBy };
}

function relativesOf(process: ProcessReport, { processes }: IncidentReport): Relative[] {
  const ties = new Map<number, string[]>();
  for (const { with: other, why } of process.ties ?? []) ties.set(other, [...(ties.get(other) ?? []), why]);
  const members = processes.filter(({ group }) => group !== undefined && group === process.group);
  const pids = new Set([...members.map(({ pid }) => pid), ...ties.keys()]);
  pids.delete(process.pid);
  return [...pids].map((pid) => {
    const entry = processes.find((other) => other.pid === pid);
    return { pid, comm: entry?.comm ?? '?', outcome: entry?.outcome, ties: ties.get(pid) ?? [] };
  });
}

function criuSaid({ pid, group }: ProcessReport, incident: string): CriuSaid | undefined {
  if (group === undefined) return undefined;
  const log = keptLog(incident, group);
  let text: string;
  try {
    text = readFileSync(log, 'utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  return { log, ...logLinesAbout(text, pid) };
}

/**
 * Everything that is on record about one process of an incident.
 * @param incidents the directory of all incidents, where CRIU's logs are
 * @throws IncidentError if the incident has no such process; the file system's error if a log is there and
 * cannot be read
 */
export function explainProcess(
  report: IncidentReport,
  pid: number,
  incidents: string = INCIDENTS_DIRECTORY,
): Why {
  const { id: incident, state, panic } = report;
  const process = report.processes.find((other) => other.pid === pid);
  if (process === undefined) {
    const unprotected = report.unprotected?.find((other) => other.pid === pid);
    if (unprotected === undefined) throw noSuchProcess(report, pid);
    return { incident, state, unprotected, unmatchedRules: report.unmatchedRules };
  }
  return {
    ...{ incident, state, process },
    ancestor: ancestorOf(process, report),
    wasOnPanickingCpu: panic?.process?.pid === pid,
    relatives: relativesOf(process, report),
    groupPlan: report.groups?.find(({ group }) => group === process.group)?.plan ?? [],
    criu: criuSaid(process, join(incidents, incident)),
    advice: [...new Set(groupReasons(standingAgainst(process)).flatMap(({ advice }) => advice ?? []))],
  };
}
