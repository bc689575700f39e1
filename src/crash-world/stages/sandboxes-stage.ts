import type { ProcessGroup } from '../../model/group.ts';
import type { Sandbox } from '../../model/sandbox.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { concludeGroup } from '../incident/process-reports.ts';
import { type ApartEnd, apartEndsOf, writeApartEnds } from '../sandbox/apart-connections.ts';
import { writeSandboxPlan } from '../sandbox/sandbox-plan.ts';
import { answerConnections, holdConnections, keptOf } from '../sandbox/unanswered.ts';
import type { Unchanged } from '../sandbox/unchanged-files.ts';
import { type EndImages, endImagesOf, type ImagedGroup } from './images-stage.ts';
import { orElse, stage, step } from './stage-list.ts';
import { StageSkipped } from './stage-runner.ts';

/** A group that is restored when the system boots, into the sandbox that systemd makes for its unit then. */
export interface LateGroup {
  readonly group: number;
  readonly unit: string;
  /** Of its images. */
  readonly directory: string;
  /** All of its processes, and those that are none of them zombies. */
  readonly members: readonly number[];
  readonly pids: readonly number[];
}

type Sandboxed = ProcessGroup & { readonly sandbox: Sandbox };

function isSandboxed(group: ProcessGroup): group is Sandboxed {
  return group.sandbox !== undefined;
}

/** The groups that are restored now: there is no sandbox to restore the others into. */
export function withoutSandboxed(imaged: readonly ImagedGroup[]): ImagedGroup[] {
  return imaged.filter(({ group }) => !isSandboxed(group));
}

/** The groups that are restored later. */
export function sandboxedOf(
  imaged: readonly ImagedGroup[],
): (Omit<ImagedGroup, 'group'> & { readonly group: Sandboxed })[] {
  return imaged.flatMap(({ group, ...rest }) => (isSandboxed(group) ? [{ ...rest, group }] : []));
}

/**
 * Before anybody runs again: a process that has the other end of a connection of a group that comes later
 * would be told that nobody is there.
 */
export const unansweredStep = step({
  name: 'unanswered',
  needs: { imaged: orElse<readonly ImagedGroup[]>([]) },
  run: ({ imaged }, work) => leaveLateUnanswered(imaged, work.report, endImagesOf(work)),
});

/**
 * Has nobody answer for the connections of the groups that are restored later, until they are, and leaves
 * which ends come back at different times. A group of which that is not possible has failed.
 * @returns the other groups, and those ends
 */
export function leaveLateUnanswered(
  imaged: readonly ImagedGroup[],
  report: IncidentReport,
  endImages: EndImages,
  places: { readonly cgroups?: string; readonly apart?: string } = {},
): { readonly imaged: readonly ImagedGroup[]; readonly apart: readonly ApartEnd[] } {
  const apart = imaged.flatMap(({ group }) => apartEndsOf(group));
  const unwritten = problemOf(() => writeApartEnds(apart, places.apart));
  const left = imaged.filter((one) => {
    const { group } = one;
    if (!isSandboxed(group)) return true;
    const isApart = apart.some((end) => end.group === group.id);
    const problem =
      (isApart ? unwritten : undefined) ??
      problemOf(() => holdConnections(group.id, keptOf(group), places.cgroups));
    if (problem === undefined) return true;
    concludeGroup(report, group.id, 'failed', [`cannot be kept for later: ${problem}`]);
    endImages(one, false);
    return false;
  });
  return { imaged: left, apart };
}

function problemOf(step: () => void): string | undefined {
  try {
    step();
    return undefined;
  } catch (error) {
    return messageWithCauses(error);
  }
}

export const sandboxesStage = stage({
  name: 'sandboxes',
  needs: {
    imaged: orElse<readonly ImagedGroup[]>([]),
    unchanged: orElse<ReadonlyMap<number, readonly Unchanged[]>>(new Map()),
  },
  run: ({ imaged, unchanged }, work) => {
    const late = keepForLater(imaged, unchanged, work.report, endImagesOf(work));
    if (late.length === 0) throw new StageSkipped('nobody was in a sandbox');
    return { late };
  },
});

/**
 * Leaves with the images of sandboxed groups what is known of them. What cannot be written has failed, and so
 * has a group whose files nobody has noted: nothing would tell whether they were changed.
 * @param unchanged see `noteSandboxed`
 */
export function keepForLater(
  imaged: readonly ImagedGroup[],
  unchanged: ReadonlyMap<number, readonly Unchanged[]>,
  report: IncidentReport,
  endImages: EndImages,
  cgroups?: string,
): LateGroup[] {
  return sandboxedOf(imaged).flatMap((one): LateGroup[] => {
    const { group, directory, pagesBytes } = one;
    try {
      const noted = unchanged.get(group.id);
      if (noted === undefined) throw new Error('its files were not noted before others ran');
      writeSandboxPlan(directory, group, {
        pagesBytes,
        unchanged: noted,
        connections: keptOf(group).connections.length,
      });
      const members = group.processes.map(({ pid }) => pid);
      const living = group.processes.filter(({ state }) => state !== 'zombie');
      const pids = living.map(({ pid }) => pid);
      return [{ group: group.id, unit: group.sandbox.unit, directory, members, pids }];
    } catch (error) {
      concludeGroup(report, group.id, 'failed', [`cannot be kept for later: ${messageWithCauses(error)}`]);
      endImages(one, false);
      answerConnections(group.id, cgroups);
      return [];
    }
  });
}
