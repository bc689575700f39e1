import { type BigIntStats, readdirSync, readlinkSync, statSync } from 'node:fs';
import type { FdTable, OpenFile } from '../../model/file.ts';
import type { ProcessGroup } from '../../model/group.ts';
import { typeOf } from '../../system/file-mode.ts';
import { type FoundFiles, generationOf, hasLastingInodes, type NamedPath } from '../files/found-file.ts';
import type { Unchanged } from '../sandbox/unchanged-files.ts';

/** How the kernel names open files that have no path (readlink of /proc/PID/fd/N). */
const links: Record<Exclude<OpenFile['type'], 'path' | 'fifo' | 'terminal'>, string> = {
  pipe: 'pipe:[',
  unix: 'socket:[',
  inet: 'socket:[',
  netlink: 'socket:[',
  eventfd: 'anon_inode:[eventfd]',
  eventpoll: 'anon_inode:[eventpoll]',
  timerfd: 'anon_inode:[timerfd]',
  signalfd: 'anon_inode:[signalfd]',
  inotify: 'anon_inode:inotify',
  'io-uring': 'anon_inode:[io_uring]',
  memfd: '/memfd:',
};

/** What is looked at of an open file. */
export interface ExaminedFile {
  readonly id: number;
  /** Of a file that is opened by a path. */
  readonly named?: NamedPath | undefined;
  /** Of one without a path: how the kernel names it. A terminal has neither. */
  readonly link?: string | undefined;
}

/** An area of a process, and the file that it maps. */
export interface ExaminedArea {
  readonly start: number;
  readonly end: number;
  readonly isOfFile: boolean;
  readonly fileId?: number | undefined;
}

/** What is looked at of a process. */
export interface ExaminedProcess {
  readonly pid: number;
  readonly isZombie: boolean;
  readonly filesId: number;
  readonly cwdFileId: number;
  readonly rootFileId: number;
  readonly exeFileId?: number | undefined;
  readonly areas: readonly ExaminedArea[];
}

/** What of a group its restored processes are compared with. */
export interface ExaminedGroup {
  readonly files: readonly ExaminedFile[];
  readonly tables: readonly FdTable[];
  readonly processes: readonly ExaminedProcess[];
}

function examinedFile(file: OpenFile): ExaminedFile {
  const { id } = file;
  if (file.type === 'terminal') return { id };
  if (file.type !== 'path' && file.type !== 'fifo') return { id, link: links[file.type] };
  const { path, identity, ghostId } = file.type === 'fifo' ? file.pathFile : file;
  return { id, named: { path, identity, ghostId } };
}

/** What has to be known of a group when it is restored, without all that its images have. */
export function examinedOf({ files, processes }: ProcessGroup): ExaminedGroup {
  return {
    files: files.files.map(examinedFile),
    tables: files.tables,
    processes: processes.map(({ pid, state, filesId, cwdFileId, rootFileId, memory }) => ({
      ...{ pid, isZombie: state === 'zombie', filesId, cwdFileId, rootFileId },
      exeFileId: memory?.exeFileId,
      areas: (memory?.vmas ?? []).map(({ start, end, kind, fileId }) => ({
        ...{ start, end, fileId },
        isOfFile: kind === 'file-private' || kind === 'file-shared',
      })),
    })),
  };
}

/** A file of a restored process, to be looked at without going by its path. */
interface Held {
  /** A link of /proc that leads to the file itself. */
  readonly link: string;
  /** `process 427: fd 3`, for people. */
  readonly place: string;
}

/** Looks at the files of one restored group. */
class Examination {
  readonly #files: ReadonlyMap<number, ExaminedFile>;
  readonly #found: FoundFiles;
  /** Files that were compared already, by device, inode and path: libraries are mapped in many pieces. */
  readonly #same = new Set<string>();

  constructor(group: ExaminedGroup, found: FoundFiles) {
    this.#files = new Map(group.files.map((file) => [file.id, file]));
    this.#found = found;
  }

  /** What is wrong with a file, as the end of a sentence; undefined if it is the one that it has to be. */
  problem(link: string, id: number): string | undefined {
    const file = this.#files.get(id);
    if (file === undefined) return `is file ${id}, which is not in the model`;
    if (file.named !== undefined) return this.#path(link, file.named);
    if (file.link === undefined)
      return statSync(link).isCharacterDevice() ? undefined : `is ${readlinkSync(link)} and was a terminal`;
    const name = readlinkSync(link);
    return name.startsWith(file.link) ? undefined : `is ${name} and was ${file.link}`;
  }

  #path(link: string, file: NamedPath): string | undefined {
    const stats = statSync(link, { bigint: true });
    const key = `${stats.dev} ${stats.ino} ${file.path} ${file.ghostId}`;
    if (this.#same.has(key)) return undefined;
    const problem = this.#compare(link, stats, file);
    if (problem === undefined) this.#same.add(key);
    return problem;
  }

  #compare(link: string, stats: BigIntStats, file: NamedPath): string | undefined {
    const { path, ghostId, identity } = file;
    const other = `is another file than ${path}`;
    if (typeOf(Number(stats.mode)) !== typeOf(identity.mode)) return `${other}, of another type`;
    if (ghostId !== undefined)
      return stats.isFile() && stats.nlink > 0n ? `has a name, and ${path} was deleted` : undefined;
    const found = this.#found.get(path);
    if (found === undefined || !hasLastingInodes(file)) {
      const name = readlinkSync(link);
      return name === path ? undefined : `is ${name} and was ${path}`;
    }
    const { dev, ino, rdev } = found.stats;
    if (stats.dev !== dev || stats.ino !== ino || stats.rdev !== rdev) {
      return `${other} (inode ${stats.ino} on device ${stats.dev}, and ${ino} on ${dev} was checked)`;
    }
    return generationOf(link, stats, file) === found.generation ? undefined : `${other}, made since`;
  }
}

function descriptorsOf(
  process: ExaminedProcess,
  group: ExaminedGroup,
): { held: Held; id: number | undefined }[] {
  const table = group.tables.find(({ filesId }) => filesId === process.filesId);
  const ids = new Map(table?.descriptors.map(({ fd, fileId }) => [fd, fileId]));
  const open = readdirSync(`/proc/${process.pid}/fd`).map(Number);
  return [...new Set([...ids.keys(), ...open])].map((fd) => ({
    held: { link: `/proc/${process.pid}/fd/${fd}`, place: `fd ${fd}` },
    id: ids.get(fd),
  }));
}

/** Finds the one of some ranges, which do not overlap, that an address is in. */
function finderOf<Range extends { readonly start: number; readonly end: number }>(
  ranges: readonly Range[],
): (address: number) => Range | undefined {
  const sorted = ranges.toSorted((a, b) => a.start - b.start);
  return (address) => {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle]!.start <= address) low = middle + 1;
      else high = middle;
    }
    const found = sorted[low - 1];
    return found !== undefined && address < found.end ? found : undefined;
  };
}

/** Areas of files, as the kernel has them now: it may have joined neighbours. */
function mappingsOf({ pid, areas: vmas }: ExaminedProcess): { held: Held; id: number | undefined }[] {
  const areaAt = finderOf(vmas);
  return readdirSync(`/proc/${pid}/map_files`).flatMap((range) => {
    const vma = areaAt(Number.parseInt(range, 16));
    if (vma !== undefined && !vma.isOfFile) return [];
    const held = { link: `/proc/${pid}/map_files/${range}`, place: `the mapping ${range}` };
    return [{ held, id: vma?.fileId }];
  });
}

/** Areas of files that are none any more. */
function lostMappings({ pid, areas }: ExaminedProcess): string[] {
  const ranges = readdirSync(`/proc/${pid}/map_files`).map((range) => {
    const [start = 0, end = 0] = range.split('-').map((address) => Number.parseInt(address, 16));
    return { start, end };
  });
  const rangeAt = finderOf(ranges);
  return areas
    .filter(({ isOfFile, start }) => isOfFile && rangeAt(start) === undefined)
    .map(({ start }) => `process ${pid}: the mapping at 0x${start.toString(16)} is of no file any more`);
}

/** Every file of a process that is held. */
function heldBy(
  process: ExaminedProcess,
  group: ExaminedGroup,
): readonly { held: Held; id: number | undefined }[] {
  const { pid, exeFileId, cwdFileId, rootFileId } = process;
  const own = (name: string, place: string, id: number | undefined) => ({
    held: { link: `/proc/${pid}/${name}`, place },
    id,
  });
  return [
    ...descriptorsOf(process, group),
    ...mappingsOf(process),
    own('exe', 'the program', exeFileId),
    own('cwd', 'the working directory', cwdFileId),
    own('root', 'the root directory', rootFileId),
  ];
}

/**
 * Looks once more whether somebody has changed a file of held processes since it was noted, through the
 * processes themselves: to be called just before they are let go.
 * @returns a sentence for each file
 * @throws the file system's error if one cannot be looked at
 */
export function changedWhileHeld(group: ExaminedGroup, unchanged: readonly Unchanged[]): string[] {
  const noted = new Map(unchanged.map((one) => [`${one.dev} ${one.ino}`, one]));
  const problems = group.processes
    .filter(({ isZombie }) => !isZombie)
    .flatMap((process) => heldBy(process, group))
    .flatMap(({ held: { link } }) => {
      const { dev, ino, ctimeNs } = statSync(link, { bigint: true });
      const was = noted.get(`${dev} ${ino}`);
      if (was === undefined || was.changed === String(ctimeNs)) return [];
      return [`${was.path} was changed while the system booted`];
    });
  return [...new Set(problems)];
}

/**
 * Compares every file of a group's restored processes (descriptors, mappings, program, working and root
 * directory) with what was found before the first process ran again, through the processes themselves: no
 * path is followed, so it does not matter what is at a path now. The processes have to be held.
 *
 * @returns a sentence for each file that is not what it has to be
 * @throws the file system's error if one cannot be looked at
 */
export function examineGroup(group: ExaminedGroup, found: FoundFiles): string[] {
  const examination = new Examination(group, found);
  return group.processes
    .filter(({ isZombie }) => !isZombie)
    .flatMap((process) => {
      const { pid } = process;
      const problems = heldBy(process, group).flatMap(({ held: { link, place }, id }) => {
        const problem =
          id === undefined ? `is ${readlinkSync(link)}, and it had none` : examination.problem(link, id);
        return problem === undefined ? [] : [`process ${pid}: ${place} ${problem}`];
      });
      return [...problems, ...lostMappings(process)];
    });
}
