import * as z from 'zod';
import type { GroupFiles } from '../../model/file.ts';
import { type FoundFile, type FoundFiles, hasLastingInodes, noteFound, pathOf } from '../files/found-file.ts';

/** A file as it is before anybody else runs, by the path that it has outside of any sandbox. */
export const unchangedSchema = z.strictObject({
  path: z.string(),
  /** Numbers of the device and the inode, and the time of its last change (statx(2)), in nanoseconds. */
  dev: z.string(),
  ino: z.string(),
  changed: z.string(),
});
/** See {@link unchangedSchema}. */
export type Unchanged = z.infer<typeof unchangedSchema>;

/**
 * Notes the regular files of a group that is restored while the system boots: until then its locks are free,
 * and who has a file may change it in place. What cannot be looked at is left out: it is refused later. To be
 * called before anybody of the dead world runs.
 */
export function noteUnchanged({ files }: Pick<GroupFiles, 'files'>): Unchanged[] {
  const lasting = files.filter((file) => {
    const named = pathOf(file);
    return named !== undefined && hasLastingInodes(named);
  });
  const found = new Map<string, FoundFile>();
  noteFound({ files: lasting }, found);
  return [...found]
    .filter(([, { stats }]) => stats.isFile())
    .map(
      ([
        path,
        {
          stats: { dev, ino, ctimeNs },
        },
      ]) => ({
        path,
        dev: String(dev),
        ino: String(ino),
        changed: String(ctimeNs),
      }),
    );
}

/**
 * What of the files has been changed since. Inside a sandbox a path may lead to another file, which nobody
 * outside has by it: that one is not compared.
 * @returns a sentence for each
 */
export function changedSince(unchanged: readonly Unchanged[], found: FoundFiles): string[] {
  return unchanged.flatMap(({ path, dev, ino, changed }) => {
    const stats = found.get(path)?.stats;
    if (stats === undefined || String(stats.dev) !== dev || String(stats.ino) !== ino) return [];
    return String(stats.ctimeNs) === changed ? [] : [`${path} was changed while the system booted`];
  });
}
