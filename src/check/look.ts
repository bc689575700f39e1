import { type CaptureRequest, captureProcesses, dependentSets, withoutDependent } from '../capture/index.ts';
import { type CriuVersion, restoreProblems, wholeGroup } from '../criu/images/limits.ts';
import { imagesSize } from '../criu/images/size.ts';
import type { CaptureResult, ProcessGroup, SharingEdge } from '../model/group.ts';
import type { Loss, UnexpectedLoss } from '../model/loss.ts';
import { type InDoubt, type Moment, type Refusal, refusalOf } from '../model/verdict.ts';
import { type ImagesRoom, noRoomFor, sumOf, whoFits } from '../report/images-room.ts';
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
  /** What there is for the images of all that are looked at; undefined if that cannot be told. */
  readonly room: ImagesRoom | undefined;
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
 * @param reasons why its images do not fit; none if they do
 */
function groupSeen(group: ProcessGroup, request: CheckRequest, reasons: readonly string[]): Seen[] {
  const images = { group: group.id, bytes: imagesSize(group).bytes };
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

/** Groups that depend on each other have room together, or none has. */
function groupsSeen(
  groups: readonly ProcessGroup[],
  dependences: readonly SharingEdge[],
  request: CheckRequest,
): Seen[] {
  const sets = dependentSets(groups, dependences);
  const { room } = request;
  const unfit = room && whoFits(sets, (set) => sumOf(set.map(imagesSize)), room).others;
  return sets.flatMap((set) =>
    set.flatMap((group) =>
      groupSeen(
        group,
        request,
        room === undefined || unfit?.includes(set) !== true ? [] : [noRoomFor(group, set, room)],
      ),
    ),
  );
}

/** Who depends on a process that cannot come back at this moment cannot either. */
function withMomentsOfOthers(all: readonly Seen[], dependences: readonly SharingEdge[]): Seen[] {
  if (dependences.length === 0) return [...all];
  const groupOf = (one: Seen | undefined): number | undefined => one?.images?.group;
  const byPid = new Map(all.map((one) => [one.pid, one]));
  const members = Map.groupBy(all, groupOf);
  /** What the processes of a group are told, by the first of those that are not there at this moment. */
  const moments = new Map<number | undefined, string>();
  const busy = new Map(all.flatMap((one) => (one.moments.length > 0 ? [[groupOf(one), one] as const] : [])));
  const edges = Map.groupBy(
    dependences.flatMap(({ pids: [a, b], why }) => [
      { from: a, to: b, why },
      { from: b, to: a, why },
    ]),
    ({ from }) => from,
  );
  const ways = [...busy.keys()];
  // It grows meanwhile.
  for (const group of ways) {
    for (const { pid, comm } of members.get(group) ?? []) {
      for (const { to, why } of edges.get(pid) ?? []) {
        const other = groupOf(byPid.get(to));
        if (other === undefined || busy.has(other) || moments.has(other)) continue;
        moments.set(other, `is tied to ${pid} (${comm}; ${why}), which cannot come back at this moment`);
        ways.push(other);
      }
    }
  }
  return all.map((one) => {
    const moment = moments.get(groupOf(one));
    return moment === undefined ? one : { ...one, moments: [moment] };
  });
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
  return seenIn(captured, request);
}

/** What would become of captured processes. */
export function seenIn(captured: CaptureResult, request: CheckRequest): Look {
  const refused = (refusal: Refusal): Seen => seen(refusal, NOTHING, request);
  const { dependences } = captured;
  const problems = captured.groups.map((group) => ({ group, own: restoreProblems(group, request.criu) }));
  const back = withoutDependent(
    {
      groups: problems.flatMap(({ group, own }) => (own.length === 0 ? [group] : [])),
      refused: problems.flatMap(({ group, own }) => (own.length === 0 ? [] : wholeGroup(group, own))),
    },
    dependences,
  );
  const found = [
    ...withMomentsOfOthers(groupsSeen(back.groups, dependences, request), dependences),
    ...back.refused.map(refused),
    ...captured.refused.map(refused),
    ...captured.ended.map(({ pid, comm, notes }) => ({
      ...seen({ pid, comm, reasons: [] }, { ...NOTHING, notes }, request),
      isEnding: true,
    })),
  ];
  return new Map(found.map((one) => [one.pid, one]));
}
