import { execFileSync } from 'node:child_process';
import { type CriuVersion, deliveredPlans, parseCriuVersion } from '../criu/images/index.ts';
import { type HeldGroup, holdImages, type Restored, type RestoreOptions } from '../criu/restore/index.ts';
import type { NumberRange } from '../linux/pid.ts';
import type { Report } from '../report/schema.ts';
import { messageWithCauses } from '../system/thrown.ts';
import { examineGroup } from './examine.ts';
import { type FoundFile, type FoundFiles, noteFound } from './found-file.ts';
import type { EndImages, ImagedGroup } from './image-stage.ts';
import { readMemory } from './meminfo.ts';
import { contentBytes } from './memory-files.ts';
import { startNumbersAt, takenNumbers } from './pids.ts';
import { prepareFiles } from './prepare.ts';
import { concludeGroup } from './process-reports.ts';
import { runtimeProgram } from './runtime-program.ts';

/** Memory that a restore needs besides the pages of its processes: CRIU, page tables, the kernel's own structures. */
const RESTORE_MARGIN_BYTES = 24 * 2 ** 20;

/** The version of the CRIU that will restore; undefined if it does not say. */
export function criuVersion(): CriuVersion | undefined {
  const [program = '', ...args] = runtimeProgram('criu');
  return parseCriuVersion(execFileSync(program, [...args, '--version'], { encoding: 'utf8' }));
}

/** A group that may be restored. */
export interface ReadyGroup extends ImagedGroup {
  /** What was at the paths of all groups' files when they were made and compared. */
  readonly found: FoundFiles;
}

/**
 * Makes the files that the groups need and compares those that must still be there. Groups with another file than before the panic are
 * reported as failed.
 * @returns the groups that may be restored
 */
export function filesStage(
  groups: readonly ImagedGroup[],
  report: Report,
  endImages: EndImages,
): ReadyGroup[] {
  const made = new Set<string>();
  const found = new Map<string, FoundFile>();
  return groups.flatMap((imaged) => {
    const { group, directory } = imaged;
    const problems = prepareFiles(directory, made).map(({ path, problem }) => `${path} ${problem}`);
    if (problems.length === 0) problems.push(...noteFound(group.files, found));
    if (problems.length > 0) {
      concludeGroup(report, group.id, 'failed', problems);
      endImages(imaged, false);
      return [];
    }
    return [{ ...imaged, found }];
  });
}

/** How the images of a group are restored. */
export function restoreOptionsOf({ group, found, plans }: ReadyGroup): RestoreOptions {
  return {
    command: runtimeProgram('criu'),
    mayEnd: new Set(deliveredPlans(plans).map(({ pid }) => pid)),
    taken: takenNumbers,
    examine: () => examineGroup(group, found),
  };
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
}

/**
 * Restores the groups one after the other, holds all of them until the last one is restored, and lets them run together, each in its cgroup: whoever runs
 * finds all the others there, and cannot change a file between the look at it and its opening by another. One that fails leaves nothing behind and
 * does not concern the others.
 */
export async function restoreStage(
  groups: readonly ReadyGroup[],
  {
    report,
    save,
    endImages,
    beforeRelease,
    numbers,
  }: {
    readonly report: Report;
    readonly save: () => void;
    readonly endImages: EndImages;
    /** Called when there is a group to let go, before the first one runs. */
    readonly beforeRelease: () => void;
    /** Where the numbers of CRIU and its helpers begin. */
    readonly numbers?: NumberRange | undefined;
  },
  birthplaceOf: (group: ImagedGroup) => string,
  optionsOf: (group: ReadyGroup) => RestoreOptions = restoreOptionsOf,
): Promise<RestoredGroup[]> {
  const held: { ready: ReadyGroup; hold: HeldGroup }[] = [];
  for (const ready of groups) {
    const hold = await concluding(ready, report, () => {
      if (numbers !== undefined) startNumbersAt(numbers);
      return holdOne(ready, optionsOf(ready), report);
    });
    if (hold !== undefined) held.push({ ready, hold });
    else endImages(ready, false);
    save();
  }
  if (held.length > 0) beforeRelease();
  const restored: RestoredGroup[] = [];
  for (const { ready, hold } of held) {
    const { group } = ready;
    const released = await concluding(ready, report, () => letGo(hold, birthplaceOf(ready)));
    if (released === undefined) {
      endImages(ready, false);
      continue;
    }
    concludeGroup(report, group.id, 'restored', []);
    report.notes.push(...released.notes);
    restored.push({ group: group.id, pids: released.pids, imaged: ready });
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
  report: Report,
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

async function holdOne(
  { group, directory, pagesBytes }: ReadyGroup,
  options: RestoreOptions,
  report: Report,
): Promise<HeldGroup | undefined> {
  const { available } = readMemory();
  if (available < pagesBytes + RESTORE_MARGIN_BYTES) {
    const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
    concludeGroup(report, group.id, 'failed', [
      `needs ${mebibytes(pagesBytes)} MiB, and the crash world has ${mebibytes(available)} MiB left`,
    ]);
    return undefined;
  }
  const result = await holdImages(directory, options);
  if (result.restored === 'held') return result;
  const more = result.errors.filter((error) => !result.reason.endsWith(error));
  concludeGroup(report, group.id, 'failed', [result.reason, ...more.slice(0, 3)]);
  return undefined;
}
