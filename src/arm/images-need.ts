import { readdirSync, readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  type ImagesRoom,
  imagesRoom,
  memoryFileSystemProblem,
  ROOM_REMEDY,
  type RoomNeeded,
  roomProblem,
} from '../report/images-room.ts';
import { isFilledAtBoot, TMPFS_MAGIC } from '../system/file-systems.ts';
import { usedBytes } from '../system/free-space.ts';
import { type MountEntry, mountEntries, mountOf } from '../system/mountinfo.ts';
import { ifThere } from '../system/proc.ts';
import { liveParents, withDescendants } from './protected-need.ts';

/**
 * What images have besides pages: of each process some small files and an entry for each area and descriptor,
 * of each thread its registers.
 */
const PROCESS_BYTES = 128 << 10;
const THREAD_BYTES = 32 << 10;
const PROCESS_FILES = 32;

/** What is to be written after a panic, as things are now. */
export interface ImagesNeed {
  /** Of protected processes and their descendants. */
  readonly processes: RoomNeeded;
  /** Of files on tmpfs that none of them uses, as far as the configuration has them carried over. */
  readonly tmpfsBytes: number;
}

/** Files whose content is in memory alone, each counted once, whoever uses it. */
class MemoryFiles {
  readonly #mounts: readonly MountEntry[];
  readonly #known = new Set<string>();
  bytes = 0;
  /** Of those, what is on tmpfs mounts whose files are carried over anyway. */
  carriedBytes = 0;

  constructor(mounts: readonly MountEntry[]) {
    this.#mounts = mounts;
  }

  /**
   * Counts a file, if it is deleted or on a tmpfs. Shared anonymous memory, segments of System V and memfds
   * are deleted files, too (mm/shmem.c, ipc/shm.c). What a file on a tmpfs has in swap is among its blocks.
   * @param name as /proc/PID/maps and the links of /proc/PID/fd have it
   * @param link a link of /proc that leads to it, whatever its name
   */
  add(name: string, link: string): void {
    const isDeleted = name.endsWith(' (deleted)');
    const mount = isDeleted || !name.startsWith('/') ? undefined : mountOf(name, this.#mounts);
    if (!isDeleted && mount?.type !== 'tmpfs') return;
    const stat = ifThere(() => statSync(link));
    if (stat === undefined || !stat.isFile()) return;
    const key = `${stat.dev} ${stat.ino}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    this.bytes += stat.blocks * 512;
    if (mount !== undefined && !isFilledAtBoot(mount.path)) this.carriedBytes += stat.blocks * 512;
  }
}

function fieldOf(status: string, name: string): number {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? 0);
}

/** `7f0000000000-7f0000002000` as the links of /proc/PID/map_files are called: without zeros before it. */
function mapFile(range: string): string {
  return range
    .split('-')
    .map((address) => address.replace(/^0+(?=.)/, ''))
    .join('-');
}

function addFiles(pid: number, files: MemoryFiles, proc: string): void {
  const own = join(proc, String(pid));
  for (const line of ifThere(() => readFileSync(join(own, 'maps'), 'utf8'))?.split('\n') ?? []) {
    const [, range = '', name = ''] = /^(\S+) \S+ \S+ \S+ [1-9]\d* +(.*)$/.exec(line) ?? [];
    if (name !== '') files.add(name, join(own, 'map_files', mapFile(range)));
  }
  for (const fd of ifThere(() => readdirSync(join(own, 'fd'))) ?? []) {
    const link = join(own, 'fd', fd);
    const name = ifThere(() => readlinkSync(link));
    if (name !== undefined) files.add(name, link);
  }
}

/**
 * What the images of protected processes and their descendants would take if the kernel died now, and what
 * is carried over of tmpfs. It costs no more for large processes than for small ones: the kernel's own counts
 * of anonymous pages and of those in swap are asked for, and no page is looked at, as smaps_rollup does. The
 * counts are a little behind what there is: some hundred pages for each thread or processor. A page that
 * parent and child still have in common counts for both, as each of them has it in its images.
 * @param pids those that the rules name
 * @param maxMebibytes `tmpfs.max-mebibytes` of the configuration
 */
export function imagesNeed(pids: readonly number[], maxMebibytes: number, proc = '/proc'): ImagesNeed {
  const mounts = mountEntries(readFileSync(join(proc, '1/mountinfo'), 'latin1'));
  const files = new MemoryFiles(mounts);
  let bytes = 0;
  let count = 0;
  for (const pid of withDescendants(pids, liveParents(proc))) {
    const status = ifThere(() => readFileSync(join(proc, String(pid), 'status'), 'latin1'));
    if (status === undefined) continue;
    const memory = (fieldOf(status, 'RssAnon') + fieldOf(status, 'VmSwap')) * 1024;
    bytes += memory + PROCESS_BYTES + THREAD_BYTES * fieldOf(status, 'Threads');
    count++;
    addFiles(pid, files, proc);
  }
  const carried = Math.max(0, tmpfsBytes(mounts) - files.carriedBytes);
  return {
    processes: { bytes: bytes + files.bytes, files: PROCESS_FILES * count },
    tmpfsBytes: Math.min(carried, maxMebibytes * 2 ** 20),
  };
}

/** What is on the tmpfs mounts whose files are carried over. */
function tmpfsBytes(mounts: readonly MountEntry[]): number {
  const own = mounts.filter(({ type, path }) => type === 'tmpfs' && !isFilledAtBoot(path));
  const each = new Map(own.map(({ device, path }) => [device, path]));
  return [...each.values()].reduce((sum, path) => {
    const found = ifThere(() => statfsSync(path));
    // Another mount may hide it.
    return found === undefined || found.type !== TMPFS_MAGIC ? sum : sum + usedBytes(found);
  }, 0);
}

/** What there is to say of the room for images. */
export interface RoomFound {
  readonly need: ImagesNeed;
  readonly room: ImagesRoom;
  /** That protected processes would not come back for lack of room, and what to do; undefined if none. */
  readonly problem: string | undefined;
  /** The same of files on tmpfs that nobody of them uses. */
  readonly tmpfsProblem: string | undefined;
}

/** Compares what the images need now with what is free where they would be written. */
export function lookAtRoom(
  pids: readonly number[],
  {
    images,
    tmpfs,
  }: {
    readonly images: { readonly directory: string };
    readonly tmpfs: { readonly 'max-mebibytes': number };
  },
): RoomFound {
  return judgeRoom(imagesNeed(pids, tmpfs['max-mebibytes']), imagesRoom(images.directory));
}

/** What there is to say of a need and a room. */
export function judgeRoom(need: ImagesNeed, room: ImagesRoom): RoomFound {
  const { processes, tmpfsBytes } = need;
  const short = roomProblem(processes, room);
  const inMemory = processes.files === 0 ? undefined : memoryFileSystemProblem(room);
  const with_ =
    short === undefined && roomProblem({ ...processes, bytes: processes.bytes + tmpfsBytes }, room);
  return {
    ...{ need, room },
    problem:
      short === undefined
        ? inMemory
        : `the images of what is protected now ${short}. After a panic the smallest would come back, as far as ` +
          `that goes, and the others would not: ${ROOM_REMEDY}`,
    tmpfsProblem: with_
      ? `with the files on tmpfs that are carried over, images ${with_}. Those that do not fit would be lost, ` +
        'the largest first: make room there, or set tmpfs.max-mebibytes'
      : undefined,
  };
}
