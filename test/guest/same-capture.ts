import type { OpenFile } from '../../src/model/file.ts';
import type { CaptureResult, ProcessGroup } from '../../src/model/group.ts';
import type { PageRuns } from '../../src/model/page-runs.ts';
import type { Process } from '../../src/model/process.ts';

/**
 * Parts of a process, each as a text that is the same in every capture of it, whatever numbers the capture
 * gave.
 */
type Shape = ReadonlyMap<string, string>;

function showRuns(runs: PageRuns): string {
  return [...runs].map(({ address, pages, physical }) => `${address}+${pages}@${physical}`).join(' ');
}

class GroupShape {
  readonly #group: ProcessGroup;
  readonly #files: ReadonlyMap<number, OpenFile>;
  readonly #memory: ReadonlyMap<number, string>;

  constructor(group: ProcessGroup) {
    this.#group = group;
    this.#files = new Map(group.files.files.map((file) => [file.id, file]));
    this.#memory = new Map(
      group.sharedMemory.map(({ shmid, origin, runs }) => [shmid, `${origin} ${showRuns(runs)}`]),
    );
  }

  /** What the kernel keeps in two places, so that damage to one of them shows. */
  of(process: Process): Shape {
    const { threads, memory, filesId, state } = process;
    const table = this.#group.files.tables.find((candidate) => candidate.filesId === filesId);
    return new Map([
      ['threads', threads.map(({ tid }) => tid).join(' ')],
      ['state', state === 'zombie' ? state : 'lives'],
      ...(memory?.vmas ?? []).map(({ start, end, kind, runs, shmid = 0, fileId = 0 }): [string, string] => [
        `area ${start.toString(16)}-${end.toString(16)}`,
        `${kind} ${this.#file(fileId)} ${showRuns(runs)} ${this.#memory.get(shmid) ?? ''}`,
      ]),
      ...(table?.descriptors ?? []).map(({ fd, fileId }): [string, string] => [
        `fd ${fd}`,
        this.#file(fileId),
      ]),
    ]);
  }

  /**
   * A file without its names and its numbers: of these nothing but the disk tells whether they are right,
   * before the restore.
   */
  #file(id: number, depth = 0): string {
    const file = this.#files.get(id);
    if (file === undefined) return 'none';
    if (file.type === 'memfd') {
      const shmid = this.#group.files.memfds.find(({ inodeId }) => inodeId === file.inodeId)?.shmid ?? 0;
      return `memfd ${this.#memory.get(shmid)}`;
    }
    if (file.type !== 'eventpoll' || depth > 0) return file.type;
    const targets = file.targets.map(({ fd, fileId }) => `${fd}: ${this.#file(fileId, 1)}`);
    return `eventpoll ${targets.toSorted().join(', ')}`;
  }
}

function shapes({ groups }: CaptureResult): Map<number, { process: Process; shape: Shape }> {
  return new Map(
    groups.flatMap((group) => {
      const shape = new GroupShape(group);
      return group.processes.map((process) => [process.pid, { process, shape: shape.of(process) }] as const);
    }),
  );
}

function saysNothing(process: Process, before: Process): boolean {
  const { repairs, notes, inDoubt } = process.findings;
  const old = before.findings;
  return (
    repairs.length <= old.repairs.length &&
    notes.length <= old.notes.length &&
    inDoubt.length <= old.inDoubt.length
  );
}

/**
 * What the processes of a capture that come back have other than in an earlier one, as sentences: areas of
 * memory with their pages, shared memory, descriptors, watches of epolls, threads. Those that have a new
 * repair, note or doubt are left out.
 */
export function silentDifferences(whole: CaptureResult, damaged: CaptureResult): string[] {
  const before = shapes(whole);
  return [...shapes(damaged)].flatMap(([pid, { process, shape }]) => {
    const old = before.get(pid);
    if (old === undefined) return [`${pid} comes back from a damaged kernel only`];
    if (!saysNothing(process, old.process)) return [];
    return [...new Set([...old.shape.keys(), ...shape.keys()])]
      .filter((part) => old.shape.get(part) !== shape.get(part))
      .map((part) => `${pid} ${part}: ${shape.get(part)}, was ${old.shape.get(part)}`);
  });
}
