import type { ProcessGroup } from '../../model/group.ts';
import type { Process } from '../../model/process.ts';
import type { ImageDirectory } from './image.ts';
import { syntheticRoot } from './synthetic-root.ts';

/** A group as its images have it: one tree. */
export interface RootedGroup extends ProcessGroup {
  /** The processes of the images: with the fabricated parent before the group's own, if it needs one. */
  readonly tree: readonly Process[];
  /** Root processes of the group's own: what the world sees first of it. */
  readonly roots: readonly Process[];
  /** The fabricated parent, undefined if the group needs none. */
  readonly fabricated: Process | undefined;
}

/** Processes whose parent is not in the group. */
function rootsOf(processes: readonly Process[]): Process[] {
  const pids = new Set(processes.map(({ pid }) => pid));
  return processes.filter(({ ppid }) => !pids.has(ppid));
}

/** `criu restore` takes one root, and only one that leads its session. */
function needsSyntheticRoot(roots: readonly Process[]): boolean {
  const [only] = roots;
  return roots.length !== 1 || only === undefined || only.sid !== only.pid;
}

/** Gives a group one root, if it has none that CRIU takes. Throws an Error if it has no processes. */
export function withOneRoot(group: ProcessGroup): RootedGroup {
  const roots = rootsOf(group.processes);
  if (!needsSyntheticRoot(roots)) return { ...group, tree: group.processes, roots, fabricated: undefined };
  const model = roots.find(({ memory }) => memory !== undefined) ?? roots[0];
  if (model === undefined) throw new Error(`group ${group.id} has no processes`);
  const isRoot = new Set(roots.map(({ pid }) => pid));
  const ids = group.processes.flatMap(({ filesId, fsId, sighandId, memory }) => [
    filesId,
    fsId,
    sighandId,
    memory?.id ?? 0,
  ]);
  const fabricated = syntheticRoot(group.freePid, Math.max(...ids) + 1, model);
  const children = group.processes.map((process) =>
    isRoot.has(process.pid) ? { ...process, ppid: fabricated.pid } : process,
  );
  return { ...group, tree: [fabricated, ...children], roots, fabricated };
}

/** Writes `fdinfo-FILESID.img` of a fabricated parent, which has nothing open. */
export function writeNoDescriptors(
  { fabricated }: Pick<RootedGroup, 'fabricated'>,
  images: ImageDirectory,
): void {
  if (fabricated !== undefined) images.image('fdinfo', fabricated.filesId);
}
