import { dependentSets, withoutDependent } from '../../capture/index.ts';
import { imagesSize, wholeGroup } from '../../criu/images/index.ts';
import type { ProcessGroup, SharingEdge } from '../../model/group.ts';
import type { Refusal } from '../../model/verdict.ts';
import { type ImagesRoom, noRoomFor, type RoomNeeded, sumOf, whoFits } from '../../report/images-room.ts';

/** What is decided of captured groups before anything is written. */
export interface Decided {
  readonly groups: readonly ProcessGroup[];
  readonly refused: readonly Refusal[];
}

/** What decides besides the groups themselves. */
export interface LateTerms {
  /** Why a group cannot come back; none if it can. */
  problemsOf(group: ProcessGroup): readonly Refusal[];
  readonly dependences: readonly SharingEdge[];
  /** What there is for images; undefined if it is not known. */
  readonly room: ImagesRoom | undefined;
}

/**
 * Refuses groups for what is only known after the capture, and with them all that depend on them. Of lack of
 * room it tells only of groups that others depend on: all others are written as long as there is room.
 */
export function refuseLate(groups: readonly ProcessGroup[], terms: LateTerms): Decided {
  const { problemsOf, dependences, room } = terms;
  const kept: ProcessGroup[] = [];
  const refused: Refusal[] = [];
  for (const group of groups) {
    const problems = problemsOf(group);
    if (problems.length === 0) kept.push(group);
    else refused.push(...wholeGroup(group, problems));
  }
  const decided = withoutDependent({ groups: kept, refused }, dependences);
  return room === undefined ? decided : withoutRoom(decided, dependences, room);
}

/** What images take for sure. */
function leastOf(group: ProcessGroup): RoomNeeded {
  try {
    const { leastBytes, files } = imagesSize(group);
    return { bytes: leastBytes, files };
  } catch {
    // What cannot be counted is found out when it is written.
    return { bytes: 0, files: 0 };
  }
}

function withoutRoom(
  { groups, refused }: Decided,
  dependences: readonly SharingEdge[],
  room: ImagesRoom,
): Decided {
  const sets = dependentSets(groups, dependences);
  const { others } = whoFits(sets, (set) => sumOf(set.map(leastOf)), room);
  const lost = others.filter((set) => set.length > 1);
  const gone = new Set(lost.flat());
  const added = lost.flatMap((set) =>
    set.flatMap((group) => {
      const reasons = [noRoomFor(group, set, room)];
      return group.processes.map(({ pid, comm }) => ({ pid, comm, reasons }));
    }),
  );
  return { groups: groups.filter((group) => !gone.has(group)), refused: [...refused, ...added] };
}
