import { RAMFS_MAGIC, TMPFS_MAGIC } from '../system/file-systems.ts';
import { type FreeSpace, freeSpace } from '../system/free-space.ts';

/** What images need of a file system. */
export interface RoomNeeded {
  readonly bytes: number;
  /** Files and directories. */
  readonly files: number;
}

/**
 * What images leave free: the incident's report and log are mostly on the same file system, and so is what
 * the system and the processes write as soon as they run. It is this much, or a tenth of the little there is.
 */
const KEPT_FREE = { bytes: 64 * 2 ** 20, files: 64 };
const KEPT_SHARE = 0.1;

/** What to do where images have too little room. */
export const ROOM_REMEDY =
  'make room there (otherworld report --prune --images removes those of earlier incidents), set images.directory ' +
  'to a larger file system and arm again, or protect fewer processes';

/** What there is for images. */
export interface ImagesRoom extends FreeSpace {
  /** What images may take of it. */
  readonly bytesForImages: number;
  readonly filesForImages: number;
}

/** What of `free` is left when the rest of the system has what is kept for it. */
function leaving(free: number, kept: number): number {
  return Math.floor(free - Math.min(kept, free * KEPT_SHARE));
}

/** What images may take of what is free. */
export function roomOf(free: FreeSpace): ImagesRoom {
  return {
    ...free,
    bytesForImages: leaving(free.bytes, KEPT_FREE.bytes),
    filesForImages: leaving(free.files ?? Number.POSITIVE_INFINITY, KEPT_FREE.files),
  };
}

/**
 * What is left for further images.
 * @param first what there was before the first
 * @param free what is free now
 * @param writtenBytes of those that were written since: btrfs does not count what is not on the disk yet
 */
export function roomLeft(first: ImagesRoom, free: FreeSpace, writtenBytes: number): ImagesRoom {
  const keptBytes = first.bytes - first.bytesForImages;
  const keptFiles = first.files === undefined ? 0 : first.files - first.filesForImages;
  return {
    ...free,
    bytesForImages: Math.max(0, Math.min(free.bytes - keptBytes, first.bytesForImages - writtenBytes)),
    filesForImages: (free.files ?? Number.POSITIVE_INFINITY) - keptFiles,
  };
}

/** What there is for images in `images.directory` now, or in one below it. Throws the error of statfs(2). */
export function imagesRoom(directory: string): ImagesRoom {
  return roomOf(freeSpace(directory));
}

/** Whether images fit. */
export function fits({ bytes, files }: RoomNeeded, room: ImagesRoom): boolean {
  return bytes <= room.bytesForImages && files <= room.filesForImages;
}

/** Mebibytes as they are said of a need, and of what there is: neither is made to look better. */
const needed = (bytes: number): number => Math.ceil(bytes / 2 ** 20);
const free = (bytes: number): number => Math.floor(bytes / 2 ** 20);

/** `812 MiB needed, 300 MiB free in /var/lib/otherworld`; without a room, it is not known. */
export function sayRoom({ bytes }: Pick<RoomNeeded, 'bytes'>, room: FreeSpace | undefined): string {
  if (room === undefined) return `${needed(bytes)} MiB needed, what is free is not known`;
  return `${needed(bytes)} MiB needed, ${free(room.bytes)} MiB free in ${room.directory}`;
}

/** Why images do not fit, after "its images" and the like; undefined if they do. */
export function roomProblem(need: RoomNeeded, room: ImagesRoom): string | undefined {
  if (need.bytes > room.bytesForImages) {
    const kept = needed(room.bytes - room.bytesForImages);
    return (
      `need ${needed(need.bytes)} MiB, and ${free(room.bytes)} MiB are free in ${room.directory}, ` +
      `${kept} of them for the rest of the system`
    );
  }
  if (need.files <= room.filesForImages) return undefined;
  return `need ${need.files} files, and ${room.files} more can be made in ${room.directory}`;
}

/** What images need together. */
export function sumOf(needs: readonly RoomNeeded[]): RoomNeeded {
  const sum = { bytes: 0, files: 0 };
  for (const { bytes, files } of needs) {
    sum.bytes += bytes;
    sum.files += files;
  }
  return sum;
}

/** Processes that come back together. */
interface Together {
  readonly processes: readonly { readonly pid: number; readonly comm: string }[];
}

/**
 * Why a group is refused whose images do not fit. How much is needed is another number a moment later: the
 * same words say that it lasts.
 * @param all with those that come back only if it does, and it only if they do
 */
export function noRoomFor(group: Together, all: readonly Together[], { directory }: ImagesRoom): string {
  const others = all
    .filter((one) => one !== group)
    .flatMap(({ processes: [first] }) => (first === undefined ? [] : `${first.pid} (${first.comm})`));
  const those = others.length === 0 ? '' : ` and those of ${others.join(', ')}, on which it depends,`;
  return `has no room for its images${those} in ${directory}`;
}

/** That what is written to a file system would not outlive the kernel's memory; undefined if it would. */
export function memoryFileSystemProblem({ type, directory }: FreeSpace): string | undefined {
  if (type >>> 0 !== TMPFS_MAGIC && type >>> 0 !== RAMFS_MAGIC) return undefined;
  return (
    `images.directory is on a file system in memory (${directory}): after a panic that is the little memory ` +
    'of the crash kernel; set it to a directory on a disk'
  );
}

/**
 * The smallest first, as long as they fit together: so as many as possible come back.
 * @returns those that fit and those that do not, by rising size
 */
export function whoFits<T>(
  all: readonly T[],
  needOf: (one: T) => RoomNeeded,
  room: ImagesRoom,
): { fitting: T[]; others: T[] } {
  const sorted = all
    .map((one) => ({ one, need: needOf(one) }))
    .toSorted((a, b) => a.need.bytes - b.need.bytes);
  let left = room;
  const fitting: T[] = [];
  const others: T[] = [];
  for (const { one, need } of sorted) {
    if (!fits(need, left)) {
      others.push(one);
      continue;
    }
    fitting.push(one);
    left = {
      ...left,
      bytesForImages: left.bytesForImages - need.bytes,
      filesForImages: left.filesForImages - need.files,
    };
  }
  return { fitting, others };
}
