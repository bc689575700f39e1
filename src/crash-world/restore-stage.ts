import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { RUNTIME_DIRECTORY } from '../config/paths.ts';
import { deliveredPlans } from '../criu/crash-procedure.ts';
import { type CriuVersion, parseCriuVersion, restoreImages } from '../criu/index.ts';
import type { Report } from '../report/schema.ts';
import { withinCgroup } from './cgroups.ts';
import type { EndImages, ImagedGroup } from './image-stage.ts';
import { readMemory } from './meminfo.ts';
import { contentBytes } from './memory-files.ts';
import { prepareFiles } from './prepare.ts';
import { concludeGroup } from './process-reports.ts';
import { messageOf } from './stages.ts';

/** Memory that a restore needs besides the pages of its processes: CRIU, page tables, the kernel's own structures. */
const RESTORE_MARGIN_BYTES = 24 * 2 ** 20;

/** The command that starts a program of the runtime with the runtime's own libraries. */
export function runtimeProgram(name: string): string[] {
  const library = join(RUNTIME_DIRECTORY, 'lib');
  return [
    join(library, 'ld-linux-x86-64.so.2'),
    '--library-path',
    library,
    join(RUNTIME_DIRECTORY, 'bin', name),
  ];
}

/** The version of the CRIU that will restore; undefined if it does not say. */
export function criuVersion(): CriuVersion | undefined {
  const [program = '', ...args] = runtimeProgram('criu');
  return parseCriuVersion(execFileSync(program, [...args, '--version'], { encoding: 'utf8' }));
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
): ImagedGroup[] {
  const made = new Set<string>();
  return groups.filter((imaged) => {
    const { group, directory } = imaged;
    const problems = prepareFiles(directory, made).map(({ path, problem }) => `${path} ${problem}`);
    if (problems.length === 0) return true;
    concludeGroup(report, group.id, 'failed', problems);
    endImages(imaged, false);
    return false;
  });
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
  readonly imaged: ImagedGroup;
}

/**
 * Restores the groups one after the other, each in its cgroup; one that fails leaves nothing behind and does not concern the others.
 */
export async function restoreStage(
  groups: readonly ImagedGroup[],
  {
    report,
    save,
    endImages,
  }: { readonly report: Report; readonly save: () => void; readonly endImages: EndImages },
  birthplaceOf: (group: ImagedGroup) => string,
): Promise<RestoredGroup[]> {
  const restored: RestoredGroup[] = [];
  for (const imaged of groups) {
    const { group } = imaged;
    const runsProcedures = new Set(deliveredPlans(imaged.plans).map(({ pid }) => pid));
    let pids: readonly number[] | undefined;
    try {
      pids = await withinCgroup(birthplaceOf(imaged), () => restoreOne(imaged, runsProcedures, report));
      if (pids !== undefined) restored.push({ group: group.id, pids, imaged });
    } catch (error) {
      console.error(error);
      concludeGroup(report, group.id, 'failed', [messageOf(error)]);
    }
    save();
    // The fallback of a procedure may need the images once more.
    if (pids === undefined || runsProcedures.size === 0) endImages(imaged, pids !== undefined);
  }
  return restored;
}

async function restoreOne(
  { group, directory, pagesBytes }: ImagedGroup,
  mayEnd: ReadonlySet<number>,
  report: Report,
): Promise<readonly number[] | undefined> {
  const { available } = readMemory();
  if (available < pagesBytes + RESTORE_MARGIN_BYTES) {
    const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
    concludeGroup(report, group.id, 'failed', [
      `needs ${mebibytes(pagesBytes)} MiB, and the crash world has ${mebibytes(available)} MiB left`,
    ]);
    return undefined;
  }
  const result = await restoreImages(directory, { command: runtimeProgram('criu'), mayEnd });
  if (result.restored) {
    concludeGroup(report, group.id, 'restored', []);
    report.notes.push(...result.notes);
    return result.pids;
  }
  concludeGroup(report, group.id, 'failed', [result.reason, ...result.errors.slice(1, 4)]);
  return undefined;
}
