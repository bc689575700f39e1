import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Manifest } from '../../config/manifest.ts';
import { RUN_DIRECTORY } from '../../config/paths.ts';
import { deliveredPlans } from '../../criu/images/index.ts';
import {
  type HeldGroup,
  holdImages,
  type ProcedureWatch,
  type Restored,
  type RestoreOptions,
} from '../../criu/restore/index.ts';
import type { NumberRange } from '../../linux/pid.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { concludeGroup, noteRestoreSeconds } from '../incident/process-reports.ts';
import { readMemory } from '../machine/meminfo.ts';
import { contentBytes } from '../mounts/saved-tmpfs.ts';
import { examinedOf, examineGroup } from '../processes/examine.ts';
import { startNumbersAt, takenNumbers } from '../processes/pids.ts';
import { runtimeProgram } from '../runtime-program.ts';
import { scopeOf } from '../systemd/adoption.ts';
import { type StartTimes, startTimesOf } from '../systemd/scope-end.ts';
import { type ToRestore, timeForOne } from '../time-share.ts';
import type { ReadyGroup } from './files-stage.ts';
import { type EndImages, endImagesOf, type ImagedGroup } from './images-stage.ts';
import { orElse, stage } from './stage-list.ts';

/**
 * Tells init.sh that there may be processes to stay in the crash world for from now on, whatever becomes of
 * this program.
 */
const RELEASED = join(RUN_DIRECTORY, 'released');

export const restoreStage = stage({
  name: 'restore',
  needs: {
    ready: orElse<readonly ReadyGroup[]>([]),
    watch: orElse<ProcedureWatch | undefined>(undefined),
  },
  run: async ({ ready, watch }, work) => {
    const { report, save, numbers } = work;
    const beforeRelease = () => writeFileSync(RELEASED, '');
    const means = { report, save, endImages: endImagesOf(work), beforeRelease, numbers };
    const watched = watch === undefined ? withoutUnwatched(ready, means) : ready;
    const minutes = timeLimitMinutesOf(work.manifest);
    const optionsOf = (one: ReadyGroup, waiting: readonly ReadyGroup[]) =>
      restoreOptionsOf(one, minutes, waiting);
    return { restored: await restoreGroups(watched, means, birthplaceOf, optionsOf) };
  },
});

/**
 * Where nobody can watch procedures, who comes back for its procedure alone does not: it could stay in it for
 * ever.
 */
export function withoutUnwatched(
  ready: readonly ReadyGroup[],
  { report, endImages }: { readonly report: IncidentReport; readonly endImages: EndImages },
): ReadyGroup[] {
  return ready.filter((one) => {
    if (deliveredPlans(one.plans).every(({ mayContinue }) => mayContinue)) return true;
    concludeGroup(report, one.group.id, 'failed', [
      'comes back for its crash procedure alone, and nobody can watch that',
    ]);
    endImages(one, false);
    return false;
  });
}

/** Not in the cgroup of a service: systemd may end what it finds there when the service's start fails. */
function birthplaceOf({ group }: ImagedGroup): string {
  return scopeOf(group.id).cgroup;
}

/**
 * Memory that a restore needs besides the pages of its processes: CRIU, page tables, the kernel's own
 * structures.
 */
const RESTORE_MARGIN_BYTES = 24 * 2 ** 20;

/** After so many minutes init.sh ends this program. */
export function timeLimitMinutesOf({ config }: Manifest): number {
  return config['crash-kernel']['time-limit-minutes'];
}

/**
 * How the images of a group are restored, from now on.
 * @param waiting groups that come after it
 */
export function restoreOptionsOf(
  ready: ReadyGroup,
  timeLimitMinutes: number,
  waiting: readonly ReadyGroup[],
): RestoreOptions {
  const { group, found, plans } = ready;
  const time = { minutes: timeLimitMinutes, limit: 'time-limit-minutes' };
  return {
    command: runtimeProgram('criu'),
    most: timeForOne(time, toRestore(ready), waiting.map(toRestore)),
    mayEnd: new Set(deliveredPlans(plans).map(({ pid }) => pid)),
    taken: takenNumbers,
    examine: () => examineGroup(examinedOf(group), found),
  };
}

function toRestore({ pagesBytes, group }: ImagedGroup): ToRestore {
  return { pagesBytes, ringSeconds: group.ringSeconds ?? 0 };
}

/** Memory that is left when all groups have what they and their files on tmpfs need. */
export function spareBytes(groups: readonly ImagedGroup[]): number {
  const needed = groups.reduce(
    (sum, { pagesBytes, group }) =>
      sum +
      pagesBytes +
      RESTORE_MARGIN_BYTES +
      group.files.filesToMake.reduce((bytes, file) => bytes + contentBytes(file), 0),
    0,
  );
  return readMemory().available - needed;
}

/** A group that runs again. */
export interface RestoredGroup {
  readonly group: number;
  readonly pids: readonly number[];
  readonly imaged: ReadyGroup;
  /** When it was let go, by `performance.now()`. */
  readonly releasedAt: number;
  /** Which processes they are, whoever has their numbers later. */
  readonly started: StartTimes;
}

/**
 * Restores the groups one after the other, holds all of them until the last one is restored, and lets them
 * run together, each in its cgroup: whoever runs finds all the others there, and cannot change a file between
 * the look at it and its opening by another. One that fails leaves nothing behind and does not concern the
 * others.
 */
export async function restoreGroups(
  groups: readonly ReadyGroup[],
  {
    report,
    save,
    endImages,
    beforeRelease,
    numbers,
  }: {
    readonly report: IncidentReport;
    readonly save: () => void;
    readonly endImages: EndImages;
    /** Called when there is a group to let go, before the first one runs. */
    readonly beforeRelease: () => void;
    /** Where the numbers of CRIU and its helpers begin. */
    readonly numbers?: NumberRange | undefined;
  },
  birthplaceOf: (group: ImagedGroup) => string,
  optionsOf: (group: ReadyGroup, waiting: readonly ReadyGroup[]) => RestoreOptions,
): Promise<RestoredGroup[]> {
  const held: { ready: ReadyGroup; hold: HeldGroup }[] = [];
  for (const [i, ready] of groups.entries()) {
    const hold = await concluding(ready, report, () => {
      if (numbers !== undefined) startNumbersAt(numbers);
      return holdOne(ready, optionsOf(ready, groups.slice(i + 1)), report);
    });
    if (hold !== undefined) held.push({ ready, hold });
    else endImages(ready, false);
    save();
  }
  if (held.length > 0) beforeRelease();
  const restored: RestoredGroup[] = [];
  for (const { ready, hold } of held) {
    const { group } = ready;
    const started = startTimesOf(group.processes.map(({ pid }) => pid));
    const releasedAt = performance.now();
    const released = await concluding(ready, report, () => letGo(hold, birthplaceOf(ready)));
    if (released === undefined) {
      endImages(ready, false);
      continue;
    }
    concludeGroup(report, group.id, 'restored', []);
    report.notes.push(...released.notes);
    restored.push({ group: group.id, pids: released.pids, imaged: ready, releasedAt, started });
    // The fallback of a procedure may need the images once more.
    if (deliveredPlans(ready.plans).length === 0) endImages(ready, true);
  }
  save();
  return restored;
}

async function letGo(hold: HeldGroup, cgroup: string): Promise<Restored> {
  try {
    return hold.release(cgroup);
  } catch (error) {
    await hold.end();
    throw error;
  }
}

/** What goes wrong with one group is that group's. */
async function concluding<T>(
  { group }: ReadyGroup,
  report: IncidentReport,
  step: () => T | Promise<T>,
): Promise<T | undefined> {
  try {
    return await step();
  } catch (error) {
    console.error(error);
    concludeGroup(report, group.id, 'failed', [messageWithCauses(error)]);
    return undefined;
  }
}

/** Why a group does not fit into the memory that is left; undefined if it does. */
export function memoryProblem(pagesBytes: number): string | undefined {
  const { available } = readMemory();
  if (available >= pagesBytes + RESTORE_MARGIN_BYTES) return undefined;
  const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
  return `needs ${mebibytes(pagesBytes)} MiB, and the crash world has ${mebibytes(available)} MiB left`;
}

async function holdOne(
  { group, directory, pagesBytes }: ReadyGroup,
  options: RestoreOptions,
  report: IncidentReport,
): Promise<HeldGroup | undefined> {
  const problem = memoryProblem(pagesBytes);
  if (problem !== undefined) {
    concludeGroup(report, group.id, 'failed', [problem]);
    return undefined;
  }
  const result = await holdImages(directory, options);
  if (result.restored === 'held') {
    noteRestoreSeconds(report, group.id, result.seconds);
    return result;
  }
  const more = result.errors.filter((error) => !result.reason.endsWith(error));
  concludeGroup(report, group.id, 'failed', [result.reason, ...more.slice(0, 3)]);
  return undefined;
}
