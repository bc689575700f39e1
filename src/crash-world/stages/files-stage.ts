import type { IncidentReport } from '../../report/schema.ts';
import { type FoundFile, type FoundFiles, noteFound } from '../files/found-file.ts';
import { makeAndCheckFiles } from '../files/group-files.ts';
import { concludeGroup } from '../incident/process-reports.ts';
import { noteUnchanged, type Unchanged } from '../sandbox/unchanged-files.ts';
import { type EndImages, endImagesOf, type ImagedGroup } from './images-stage.ts';
import { sandboxedOf, withoutSandboxed } from './sandboxes-stage.ts';
import { orElse, stage } from './stage-list.ts';

export const filesStage = stage({
  name: 'files',
  needs: { imaged: orElse<readonly ImagedGroup[]>([]) },
  run: ({ imaged }, work) => {
    const ready = makeReady(withoutSandboxed(imaged), work.report, endImagesOf(work));
    return { ready, unchanged: noteSandboxed(imaged) };
  },
});

/**
 * The files of the groups that are restored while the system boots, as they are when all other files are
 * made, and nobody of the dead world runs yet: from the next stage on, those who do may change them.
 * @returns by the number of the group
 */
export function noteSandboxed(imaged: readonly ImagedGroup[]): ReadonlyMap<number, readonly Unchanged[]> {
  return new Map(sandboxedOf(imaged).map(({ group }) => [group.id, noteUnchanged(group.files)]));
}

/** A group that may be restored. */
export interface ReadyGroup extends ImagedGroup {
  /** What was at the paths of all groups' files when they were made and compared. */
  readonly found: FoundFiles;
}

/**
 * Makes the files that the groups need and compares those that must still be there. Groups with another file
 * than before the panic are reported as failed.
 * @returns the groups that may be restored
 */
export function makeReady(
  groups: readonly ImagedGroup[],
  report: IncidentReport,
  endImages: EndImages,
): ReadyGroup[] {
  const made = new Set<string>();
  const found = new Map<string, FoundFile>();
  return groups.flatMap((imaged) => {
    const { group, directory } = imaged;
    const problems = makeAndCheckFiles(directory, made).map(({ path, problem }) => `${path} ${problem}`);
    if (problems.length === 0) problems.push(...noteFound(group.files, found));
    if (problems.length > 0) {
      concludeGroup(report, group.id, 'failed', problems);
      endImages(imaged, false);
      return [];
    }
    return [{ ...imaged, found }];
  });
}
