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

/** Why a process is not brought back. A process can have several reasons; each names its object. */
export interface Refusal {
  readonly pid: number;
  readonly comm: string;
  readonly reasons: readonly string[];
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
  /** Not empty: refused. */
  readonly reasons: string[];
}

/** An empty set of findings. */
export function newFindings(): Findings {
  return { checks: [], repairs: [], inDoubt: [], notes: [], reasons: [] };
}

/** The verdict that follows from the findings. */
export function verdictOf(findings: Findings): Verdict {
  if (findings.reasons.length > 0) {
    return 'refused';
  }
  return findings.repairs.length > 0 ? 'repaired' : 'sound';
}

/** Notes the comparison of two values and tells whether they agree. */
export function check(findings: Findings, what: string, left: unknown, right: unknown): boolean {
  const agrees = left === right;
  findings.checks.push(
    agrees ? { what, result: 'agrees' } : { what, result: 'differs', detail: `${left} against ${right}` },
  );
  return agrees;
}
