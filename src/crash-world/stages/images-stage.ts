import { dirname, join } from 'node:path';
import { captureCrashProcedures } from '../../capture/crash-procedure.ts';
import {
  applyCrashProcedures,
  describeGroupPlan,
  describeProcessPlan,
  imagesSize,
  keepWithoutProcedures,
  type ProcedurePlan,
  writeImages,
} from '../../criu/images/index.ts';
import { PinnedImages, readPreparation, readRestorePlan } from '../../criu/restore/index.ts';
import type { ProcessGroup } from '../../model/group.ts';
import { endGroupImages, groupDirectory, makeImagesDirectory, removeTree } from '../../report/images.ts';
import { type ImagesRoom, imagesRoom, roomLeft, roomProblem } from '../../report/images-room.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { freeSpace } from '../../system/free-space.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { contentOf } from '../../vmcore/stored-pages.ts';
import { concludeGroup } from '../incident/process-reports.ts';
import { orElse, required, stage } from './stage-list.ts';
import { imagesDirectory, type Work } from './work.ts';

/** Makes the directory for the files on tmpfs, too, so it runs also where there is no group. */
export const imagesStage = stage({
  name: 'images',
  needs: { kernel: required<Kernel>(), groups: orElse<readonly ProcessGroup[]>([]) },
  run: ({ kernel, groups }, { manifest, place, panicAt, report }) => {
    const directory = imagesDirectory({ manifest, place });
    makeImagesDirectory(directory);
    const occasion = { id: place.id, panicTimeNanoseconds: panicAt };
    return { imaged: imageGroups(kernel, groups, directory, occasion, report) };
  },
});

/** A group whose images are on the disk. */
export interface ImagedGroup {
  readonly group: ProcessGroup;
  readonly directory: string;
  /** Bytes of memory that the group will take. */
  readonly pagesBytes: number;
  readonly plans: readonly ProcedurePlan[];
}

/** What was written, until it is known what became of it. */
export const pinned = new PinnedImages();

/** Ends the images of a group of which it is known what became of it: they are not needed any more. */
export type EndImages = (group: ImagedGroup, isRestored: boolean) => void;

/** Keeps or removes images as the configuration has it; what does not work is noted. */
export function endImagesOf({ manifest, place, report }: Work): EndImages {
  const { keep } = manifest.config.images;
  const incident = join(place.incidents, place.id);
  return ({ group, directory }, isRestored) => {
    pinned.release(directory);
    const problems = endGroupImages(dirname(directory), group.id, incident, { keep, isRestored });
    report.notes.push(...problems);
  };
}

/** The pids of all processes of groups. */
export function imagedPids(imaged: readonly ImagedGroup[]): number[] {
  return imaged.flatMap(({ group }) => group.processes.map(({ pid }) => pid));
}

/** A group does not fit into what is free; the message says how much is needed, and how much is there. */
class NoRoomError extends Error {
  override readonly name = 'NoRoomError';
}

/**
 * Writes the images of each group into a directory of its own, with the crash procedures of its processes
 * applied. A group that cannot be written is reported as failed, and leaves nothing behind. The smallest
 * groups are written first: where there is not room for all, the largest do not come back, and no other is
 * harmed. One that does not fit is not begun.
 * @returns those that were written, in the order of `groups`
 */
export function imageGroups(
  kernel: Kernel,
  groups: readonly ProcessGroup[],
  images: string,
  occasion: { readonly id: string; readonly panicTimeNanoseconds: bigint },
  report: IncidentReport,
): ImagedGroup[] {
  const sizes = new Map(groups.map((group) => [group, sizeOf(group)]));
  const bySize = groups.toSorted((a, b) => (sizes.get(a)! < sizes.get(b)! ? -1 : 1));
  const room = new RoomLeft(images);
  const written = new Map(
    bySize.map((group) => [group, imageGroup(kernel, group, room, occasion, report)] as const),
  );
  return groups.flatMap((group) => written.get(group) ?? []);
}

/** One that cannot be counted is the last, and its own problem. */
function sizeOf(group: ProcessGroup): number {
  try {
    return imagesSize(group).bytes;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** The room in the directory of the images. What is kept for others is told once, before the first. */
class RoomLeft {
  readonly images: string;
  #first: ImagesRoom | undefined;
  writtenBytes = 0;

  constructor(images: string) {
    this.images = images;
  }

  /** Throws the error of statfs(2). */
  now(): ImagesRoom {
    this.#first ??= imagesRoom(this.images);
    return roomLeft(this.#first, freeSpace(this.images), this.writtenBytes);
  }
}

function imageGroup(
  kernel: Kernel,
  group: ProcessGroup,
  room: RoomLeft,
  occasion: { readonly id: string; readonly panicTimeNanoseconds: bigint },
  report: IncidentReport,
): ImagedGroup | undefined {
  const { images } = room;
  const directory = groupDirectory(images, group.id);
  try {
    const applied = applyCrashProcedures(group, captureCrashProcedures(kernel, group), occasion);
    // What may be needed besides is found out by writing: it is removed if it does not fit.
    const { leastBytes, files } = imagesSize(applied.group);
    const problem = roomProblem({ bytes: leastBytes, files }, room.now());
    if (problem !== undefined) throw new NoRoomError(problem);
    const { pagesBytes } = writeImages(applied.group, contentOf(kernel), directory);
    keepWithoutProcedures(group, applied.plans, directory);
    room.writtenBytes += pagesBytes;
    pin(directory, group.id, report);
    notePlans(report, applied.plans);
    noteRestorePlan(report, applied.group, directory);
    return { group: applied.group, directory, pagesBytes, plans: applied.plans };
  } catch (error) {
    console.error(error);
    // What is left of it takes the room of others.
    const left = removed(directory);
    const why =
      error instanceof NoRoomError
        ? `its images ${error.message}`
        : `its images could not be written: ${messageWithCauses(error)} (${sayFree(images)})`;
    concludeGroup(report, group.id, 'failed', [why, ...left]);
    return undefined;
  }
}

/** Without it, it is only less sure that a group is not restored from what its disk did not take. */
function pin(directory: string, group: number, report: IncidentReport): void {
  try {
    pinned.pin(directory);
  } catch (error) {
    report.notes.push(`the images of group ${group} are not kept open: ${messageWithCauses(error)}`);
  }
}

/** @returns why the images of a group that failed are still there; a sentence, or none */
function removed(directory: string): string[] {
  try {
    pinned.release(directory);
    removeTree(directory);
    return [];
  } catch (error) {
    return [`${directory} cannot be removed: ${messageWithCauses(error)}`];
  }
}

function sayFree(directory: string): string {
  try {
    return `${Math.floor(freeSpace(directory).bytes / 2 ** 20)} MiB are free in ${directory}`;
  } catch (error) {
    return `what is free in ${directory} cannot be told: ${messageWithCauses(error)}`;
  }
}

/** Enters what the restore will do besides what CRIU does. */
function noteRestorePlan(report: IncidentReport, group: ProcessGroup, directory: string): void {
  const plan = readRestorePlan(directory);
  report.groups ??= [];
  report.groups.push({ group: group.id, plan: describeGroupPlan(plan, readPreparation(directory), group) });
  for (const process of group.processes) {
    const entry = report.processes.find(({ pid }) => pid === process.pid);
    if (entry !== undefined) entry.plan = describeProcessPlan(plan, process);
  }
}

function notePlans(report: IncidentReport, plans: readonly ProcedurePlan[]): void {
  for (const plan of plans) {
    const process = report.processes.find(({ pid }) => pid === plan.pid);
    if (process === undefined) continue;
    process.crashProcedure =
      plan.state === 'delivered'
        ? { delivery: plan.procedure.delivery.kind, state: 'delivered' }
        : { delivery: 'none', state: 'ignored', detail: `the record ${plan.reason}` };
  }
}
