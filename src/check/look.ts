import { type CaptureRequest, captureProcesses } from '../capture/index.ts';
import { type CriuVersion, restoreProblems, wholeGroup } from '../criu/images/limits.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Loss, UnexpectedLoss } from '../model/loss.ts';
import { type InDoubt, type Moment, type Refusal, refusalOf } from '../model/verdict.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type LeasedAddresses, leaseNotes } from './leased-addresses.ts';

/** Whose fate is asked for, and what decides it besides the processes themselves. */
export interface CheckRequest
  extends Pick<CaptureRequest, 'roots' | 'includeDescendants' | 'without' | 'services' | 'losses'> {
  /** Of the CRIU that would restore; undefined if it is not known. */
  readonly criu: CriuVersion | undefined;
  /** Whether stage zero would save the registers of every CPU. */
  readonly hasStageZero: boolean;
  /** Addresses that the machine may not have again. */
  readonly leased: LeasedAddresses;
}

/** A process as one look found it. */
export interface Seen {
  readonly pid: number;
  readonly comm: string;
  /** It was ending: a moment later it is gone. */
  readonly isEnding: boolean;
  /** Why it would not come back, as far as that lasts. */
  readonly reasons: readonly string[];
  /** The same of the moment of the look. */
  readonly moments: readonly string[];
  readonly notes: readonly string[];
  readonly losses: readonly Loss[];
  /** What it would lose though no program expects it: it would come back for its procedure alone. */
  readonly unexpected: readonly UnexpectedLoss[];
  readonly inDoubt: readonly InDoubt[];
  /** Of one that would come back for its procedure alone: why it would be refused without one. */
  readonly against: readonly string[];
}

/** Processes by their numbers. */
export type Look = ReadonlyMap<number, Seen>;

type Known = Pick<Seen, 'notes' | 'losses' | 'unexpected' | 'inDoubt' | 'against'>;

const NOTHING: Known = { notes: [], losses: [], unexpected: [], inDoubt: [], against: [] };

/** What stage zero makes up for is no reason where it is loaded. */
function seen({ pid, comm, reasons, moments }: Refusal, known: Known, { hasStageZero }: CheckRequest): Seen {
  const isSaved = (moment: Moment) => moment === 'on-cpu' && hasStageZero;
  return {
    ...{ pid, comm, isEnding: false, ...known },
    reasons: reasons.filter((_, place) => moments?.get(place) === undefined),
    moments: reasons.filter((_, place) => {
      const moment = moments?.get(place);
      return moment !== undefined && !isSaved(moment);
    }),
  };
}

/** The processes of a group that can come back, but perhaps not at this moment: then none of them does. */
function groupSeen(group: ProcessGroup, request: CheckRequest): Seen[] {
  const found = group.processes.map((process) => {
    const { notes, losses, unexpected, inDoubt } = process.findings;
    const known = {
      losses,
      unexpected,
      inDoubt,
      against: process.procedureAlone?.refusedFor ?? [],
      notes: [...notes, ...leaseNotes(request.leased, group, process)],
    };
    return seen(refusalOf(process, process.findings), known, request);
  });
  const busy = found.filter(({ moments }) => moments.length > 0);
  const names = busy.map(({ pid, comm }) => `${pid} (${comm})`).join(', ');
  return found.map((one) =>
    busy.length === 0 || busy.includes(one)
      ? one
      : { ...one, moments: [`belongs together with ${names}, which cannot come back at this moment`] },
  );
}

/** Looks once at processes: what would become of them if the kernel died now, as is decided then. */
export function lookAt(kernel: Kernel, request: CheckRequest): Look {
  const { roots, includeDescendants, without, services, losses } = request;
  const captured = captureProcesses(kernel, {
    ...{ roots, includeDescendants, inSpiteOfMoments: true, forProcedures: true },
    ...(without === undefined ? {} : { without }),
    ...(services === undefined ? {} : { services }),
    ...(losses === undefined ? {} : { losses }),
  });
  const refused = (refusal: Refusal): Seen => seen(refusal, NOTHING, request);
  const found = [
    ...captured.groups.flatMap((group) => {
      const problems = restoreProblems(group, request.criu);
      return problems.length === 0 ? groupSeen(group, request) : wholeGroup(group, problems).map(refused);
    }),
    ...captured.refused.map(refused),
    ...captured.ended.map(({ pid, comm, notes }) => ({
      ...seen({ pid, comm, reasons: [] }, { ...NOTHING, notes }, request),
      isEnding: true,
    })),
  ];
  return new Map(found.map((one) => [one.pid, one]));
}
