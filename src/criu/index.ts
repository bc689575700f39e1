import type { ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';
import { pageEnd } from '../system/page.ts';
import { writeCores } from './core.ts';
import { writeFileImages } from './files/index.ts';
import { writePreparation } from './files/preparation.ts';
import { ImageDirectory, type PageSource } from './image.ts';
import { writeMm } from './mm.ts';
import { PageStores } from './pagemap.ts';
import { TimensEntrySchema } from './proto/gen/timens_pb.ts';
import { writeRestorePlan } from './restore-plan.ts';
import { syntheticRoot } from './synthetic-root.ts';
import { writeInventory, writeTree } from './tree.ts';

export { RELAY_NAME, STREAMS_GIVEN, STREAMS_TAKEN } from './files/index.ts';
export { type CriuVersion, parseCriuVersion, restoreProblems, wholeGroup } from './limits.ts';
export {
  type HeldGroup,
  holdImages,
  type Restored,
  type RestoreFailure,
  type RestoreOptions,
  type RestoreResult,
  restoreImages,
} from './restore.ts';
export { moveTo } from './restore-cgroup.ts';

/** What was written for a group. */
export interface ImageSummary {
  readonly directory: string;
  /** Names of the image files. */
  readonly files: readonly string[];
  /** Bytes of all images, and those of them that are pages of memory. */
  readonly sizeBytes: number;
  readonly pagesBytes: number;
  /** Root processes: what the world sees first of the group. */
  readonly roots: readonly number[];
  /** Number of the fabricated parent, undefined if the group needs none. */
  readonly syntheticRootPid: number | undefined;
}

const SECOND = 1_000_000_000n;

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

function withOneRoot(group: ProcessGroup): { processes: readonly Process[]; roots: Process[] } {
  const roots = rootsOf(group.processes);
  if (!needsSyntheticRoot(roots)) return { processes: group.processes, roots };
  const model = roots.find(({ memory }) => memory !== undefined) ?? roots[0];
  if (model === undefined) throw new Error(`group ${group.id} has no processes`);
  const isRoot = new Set(roots.map(({ pid }) => pid));
  const ids = group.processes.flatMap(({ filesId, fsId, sighandId, memory }) => [
    filesId,
    fsId,
    sighandId,
    memory?.id ?? 0,
  ]);
  const parent = syntheticRoot(group.freePid, Math.max(...ids) + 1, model);
  const children = group.processes.map((process) =>
    isRoot.has(process.pid) ? { ...process, ppid: parent.pid } : process,
  );
  return { processes: [parent, ...children], roots };
}

function timespec(nanoseconds: bigint): { tvSec: bigint; tvNsec: bigint } {
  return { tvSec: nanoseconds / SECOND, tvNsec: nanoseconds % SECOND };
}

/** How far into a shared memory the group's mappings reach, in bytes. */
function mappedExtent(processes: readonly Process[], shmid: number): number {
  const ends = processes
    .flatMap(({ memory }) => memory?.vmas ?? [])
    .filter((vma) => vma.shmid === shmid)
    .map((vma) => vma.offsetBytes + vma.end - vma.start);
  return pageEnd(Math.max(0, ...ends));
}

/**
 * Writes CRIU's images of a group, so that CRIU 3.17 and 4.1 restore it. The directory is created, readable by its owner only. Pages go
 * from `source` to the images without a copy in JavaScript. Throws an ImageWriteError, or the file system's error, if something
 * could not be written.
 */
export function writeImages(group: ProcessGroup, source: PageSource, directory: string): ImageSummary {
  const images = new ImageDirectory(directory);
  try {
    const { processes, roots } = withOneRoot(group);
    const stores = new PageStores(images, source);
    writeInventory(images);
    writeTree(images, processes);
    for (const process of processes) {
      writeCores(images, process);
      if (process.memory === undefined) continue;
      writeMm(images, process.pid, process.memory);
      stores.writeProcess(process.pid, process.memory);
    }
    for (const shared of group.sharedMemory) {
      stores.writeSharedMemory(shared, mappedExtent(group.processes, shared.shmid));
    }
    images.image('timens', 0).entry(TimensEntrySchema, {
      monotonic: timespec(group.clocks.monotonic),
      boottime: timespec(group.clocks.boottime),
    });
    writeFileImages(group.files, images, source);
    writePreparation(group.files, images, source);
    writeRestorePlan(directory, group, processes);
    if (processes[0] !== group.processes[0]) images.image('fdinfo', processes[0]!.filesId);
    return {
      directory,
      files: images.names,
      sizeBytes: images.sizeBytes,
      pagesBytes: stores.sizeBytes,
      roots: roots.map(({ pid }) => pid),
      syntheticRootPid: processes.length > group.processes.length ? processes[0]?.pid : undefined,
    };
  } finally {
    images.close();
  }
}
