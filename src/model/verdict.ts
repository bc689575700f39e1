import type { Fate, Loss, UnexpectedLoss } from './loss.ts';

/**
 * What is known about one captured process: `sound` (all checks agree), `repaired` (of two sources that
 * disagree one was used) or `refused`.
 */
export type Verdict = 'sound' | 'repaired' | 'refused';

/** One comparison of two sources that was made, for the report. */
export interface Check {
  /** What was compared, in the kernel's words: `mm->map_count against the maple tree`. */
  readonly what: string;
  readonly result: 'agrees' | 'differs';
  /** Both values, when they differ. */
  readonly detail?: string;
}

/** Two sources disagreed and one of them was used. */
export interface Repair {
  readonly what: string;
  readonly used: string;
  readonly instead: string;
}

/** A system call of which memory does not tell whether it took effect. */
export interface InDoubt {
  readonly tid: number;
  /** The system call's name, or `syscall NUMBER`. */
  readonly syscall: string;
  /** The file descriptor that it was made on, if it has one as first argument. */
  readonly fd?: number;
  /** A sentence for the report. */
  readonly reason: string;
}

/**
 * What makes a reason one of the moment: a moment later it can be gone, and nobody has to do anything about
 * it. All other reasons last as long as the process has what they name.
 * - `on-cpu`: a thread is on a CPU, and a living kernel does not show its registers; at a panic stage zero
 *   saves them. Nothing else is of this kind: stage zero makes up for nothing else.
 * - `passing`: it is in the middle of a system call, a vfork, an execve or its end, or it changes what is
 *   compared while it is read.
 * - `unseen`: it follows from what only the crash world looks at: the disks.
 */
export type Moment = 'on-cpu' | 'passing' | 'unseen';

/** Why a process is not brought back. A process can have several reasons; each names its object. */
export interface Refusal {
  readonly pid: number;
  readonly comm: string;
  readonly reasons: readonly string[];
  /** Which of the reasons, by their places, are of the moment; absent if none is. */
  readonly moments?: ReadonlyMap<number, Moment>;
}

/**
 * What was found out while a process was captured; carried by the process, filled by every part of the
 * capture.
 */
export interface Findings {
  readonly checks: Check[];
  readonly repairs: Repair[];
  readonly inDoubt: InDoubt[];
  /** Facts that the report tells but that change nothing. */
  readonly notes: string[];
  /** What is lost, and delivered as a failure that the program has to expect. */
  readonly losses: Loss[];
  /** What is lost though no program expects it. Not empty: it comes back for its procedure alone. */
  readonly unexpected: UnexpectedLoss[];
  /** Not empty: refused. */
  readonly reasons: string[];
  /** Which of the reasons, by their places, are of the moment: two can have the same words. */
  readonly moments: Map<number, Moment>;
}

/** An empty set of findings. */
export function newFindings(): Findings {
  const lists = { checks: [], repairs: [], inDoubt: [], notes: [], losses: [], unexpected: [], reasons: [] };
  return { ...lists, moments: new Map() };
}

/** The verdict that follows from the findings. */
export function verdictOf(findings: Findings): Verdict {
  if (findings.reasons.length > 0) {
    return 'refused';
  }
  return findings.repairs.length > 0 ? 'repaired' : 'sound';
}

/** Which of the outcomes follows from the findings. */
export function fateOf({
  reasons,
  losses,
  unexpected,
}: Pick<Findings, 'reasons' | 'losses' | 'unexpected'>): Fate {
  if (reasons.length > 0) return 'refused';
  if (unexpected.length > 0) return 'for-its-procedure';
  return losses.length > 0 ? 'with-losses' : 'whole';
}

/** Notes the comparison of two values and tells whether they agree. */
export function check(findings: Findings, what: string, left: unknown, right: unknown): boolean {
  const agrees = left === right;
  findings.checks.push(
    agrees ? { what, result: 'agrees' } : { what, result: 'differs', detail: `${left} against ${right}` },
  );
  return agrees;
}

/** Adds a reason that is of the moment. */
export function refuseForNow(findings: Findings, reason: string, moment: Moment): void {
  findings.moments.set(findings.reasons.push(reason) - 1, moment);
}

/** Marks all reasons that `find` adds as of the moment; none if there is no `moment`. */
export function ofTheMoment<T>(findings: Findings, moment: Moment | undefined, find: () => T): T {
  const before = findings.reasons.length;
  try {
    return find();
  } finally {
    if (moment !== undefined)
      for (let place = before; place < findings.reasons.length; place++) findings.moments.set(place, moment);
  }
}

/**
 * What `find` adds as reasons is lost instead: for a process that comes back for its procedure alone.
 *
 * @param keepsMoments reasons of the moment stay reasons: of a living kernel, where a moment later nothing
 *   need be lost
 */
export function loseInstead<T>(
  findings: Findings,
  lossOf: (reason: string) => UnexpectedLoss,
  keepsMoments: boolean,
  find: () => T,
): T {
  const before = findings.reasons.length;
  try {
    return find();
  } finally {
    const { reasons, moments, unexpected } = findings;
    const added = reasons.splice(before).map((reason, i) => ({ reason, moment: moments.get(before + i) }));
    for (const i of added.keys()) moments.delete(before + i);
    for (const { reason, moment } of added) {
      if (moment === undefined || !keepsMoments) unexpected.push(lossOf(reason));
      else refuseForNow(findings, reason, moment);
    }
  }
}

/**
 * What a whole set of reasons is: of the moment if each of them is, and of a CPU alone if that is all there
 * is to them. Undefined if one lasts.
 */
export function momentOf({ reasons, moments }: Pick<Refusal, 'reasons' | 'moments'>): Moment | undefined {
  return together(reasons.map((_, place) => moments?.get(place)));
}

/** The same of the reasons of several. */
export function together(kinds: readonly (Moment | undefined)[]): Moment | undefined {
  if (kinds.length === 0 || kinds.includes(undefined)) return undefined;
  return kinds.find((kind) => kind !== 'on-cpu') ?? 'on-cpu';
}

/** A refusal for what was found. */
export function refusalOf(
  { pid, comm }: { readonly pid: number; readonly comm: string },
  { reasons, moments }: Pick<Findings, 'reasons' | 'moments'>,
): Refusal {
  return { pid, comm, reasons, ...(moments.size === 0 ? {} : { moments }) };
}
