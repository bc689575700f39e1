import { type CaptureRequest, captureProcesses } from '../capture/index.ts';
import { type CriuVersion, restoreProblems, wholeGroup } from '../criu/images/limits.ts';
import { imagesSize } from '../criu/images/size.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { Loss, UnexpectedLoss } from '../model/loss.ts';
import { type InDoubt, type Moment, type Refusal, refusalOf } from '../model/verdict.ts';
import { type ImagesRoom, whoFits } from '../report/images-room.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type LeasedAddresses, leaseNotes } from './leased-addresses.ts';

/** Whose fate is asked for, and what decides it besides the processes themselves. */
export interface CheckRequest
  extends Pick<
    CaptureRequest,
    'roots' | 'includeDescendants' | 'without' | 'services' | 'losses' | 'timeLimitMinutes'
  > {
  /** Of the CRIU that would restore; undefined if it is not known. */
  readonly criu: CriuVersion | undefined;
  /** Whether stage zero would save the registers of every CPU. */
  readonly hasStageZero: boolean;
  /** Addresses that the machine may not have again. */
  readonly leased: LeasedAddresses;
  /** What there is for the images of all that are looked at. */
  readonly room: ImagesRoom;
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
  /** Of one that can come back: the images of its group. */
  readonly images?: GroupImages;
}

/** The images of processes that come back together. */
export interface GroupImages {
  /** Pid of the first of them. */
  readonly group: number;
  readonly bytes: number;
}

/** Processes by their numbers. */
export type Look = ReadonlyMap<number, Seen>;

type Known = Pick<Seen, 'notes' | 'losses' | 'unexpected' | 'inDoubt' | 'against' | 'images'>;

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

/**
 * The processes of a group that can come back, but perhaps not at this moment: then none of them does.
 * @param hasRoom whether its images fit
 */
function groupSeen(group: ProcessGroup, request: CheckRequest, hasRoom: boolean): Seen[] {
  const images = { group: group.id, bytes: imagesSize(group).bytes };
  // How much is needed is another number at each look: the same words say that it lasts.
  const reasons = hasRoom ? [] : [`has no room for its images in ${request.room.directory}`];
  const found = group.processes.map((process) => {
    const { notes, losses, unexpected, inDoubt } = process.findings;
    const known = {
      losses,
      unexpected,
      inDoubt,
      against: process.procedureAlone?.refusedFor ?? [],
      notes: [...notes, ...leaseNotes(request.leased, group, process)],
      images,
    };
    const one = seen(refusalOf(process, process.findings), known, request);
    return { ...one, reasons: [...one.reasons, ...reasons] };
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
  const { roots, includeDescendants, without, services, losses, timeLimitMinutes } = request;
  const captured = captureProcesses(kernel, {
    ...{ roots, includeDescendants, inSpiteOfMoments: true, forProcedures: true },
    ...(without === undefined ? {} : { without }),
    ...(services === undefined ? {} : { services }),
    ...(losses === undefined ? {} : { losses }),
    ...(timeLimitMinutes === undefined ? {} : { timeLimitMinutes }),
  });
  const refused = (refusal: Refusal): Seen => seen(refusal, NOTHING, request);
  const groups = captured.groups.map((group) => ({ group, problems: restoreProblems(group, request.criu) }));
  const back = groups.flatMap(({ group, problems }) => (problems.length === 0 ? [group] : []));
  const { fitting } = whoFits(back, imagesSize, request.room);
  const found = [
    ...groups.flatMap(({ group, problems }) =>
      problems.length === 0
        ? groupSeen(group, request, fitting.includes(group))
        : wholeGroup(group, problems).map(refused),
    ),
    ...captured.refused.map(refused),
    ...captured.ended.map(({ pid, comm, notes }) => ({
      ...seen({ pid, comm, reasons: [] }, { ...NOTHING, notes }, request),
      isEnding: true,
    })),
  ];
  return new Map(found.map((one) => [one.pid, one]));
}
