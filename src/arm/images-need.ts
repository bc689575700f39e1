import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  COMMON_BYTES_PER_SECOND,
  SANDBOX_PROGRAM_MINUTES,
  secondsForRestores,
} from '../config/restore-time.ts';
import {
  type ImagesRoom,
  memoryFileSystemProblem,
  ROOM_REMEDY,
  type RoomNeeded,
  roomOf,
  roomProblem,
} from '../report/images-room.ts';
import { isFilledAtBoot, TMPFS_MAGIC } from '../system/file-systems.ts';
import { type FreeSpace, freeSpace, usedBytes } from '../system/free-space.ts';
import { compareAddressSpaces } from '../system/kcmp.ts';
import { type MountEntry, mountEntries, mountOf } from '../system/mountinfo.ts';
import { ifThere } from '../system/proc.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
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
  /** Of the bytes of processes: of those in a mount namespace of their own; 0 if not given. */
  readonly sandboxBytes?: number;
  /** What could not be looked at, of processes and files; undefined if nothing. */
  readonly unread?: { readonly count: number; readonly first: string };
}

/** What mounts are, in all mount namespaces that were seen: their numbers are the same in each. */
class Mounts {
  readonly #proc: string;
  readonly #seen = new Set<string>();
  readonly #byId = new Map<string, MountEntry>();
  readonly #types = new Map<string, string>();
  /** Those of the namespace of init, whose files on tmpfs are carried over. */
  readonly own: readonly MountEntry[];
  /** Devices of the tmpfs among them that no boot fills. */
  readonly carried: ReadonlySet<string>;

  constructor(proc: string) {
    this.#proc = proc;
    this.own = this.see(1);
    const carried = this.own.filter(({ type, path }) => type === 'tmpfs' && !isFilledAtBoot(path));
    this.carried = new Set(carried.map(({ device }) => device));
  }

  /** Reads the mounts that a process has, unless they are known from another one. */
  see(pid: number): MountEntry[] {
    const own = join(this.#proc, String(pid));
    const namespace = namespaceOf(own);
    if (this.#seen.has(namespace)) return [];
    this.#seen.add(namespace);
    const mounts = mountEntries(ifThere(() => readFileSync(join(own, 'mountinfo'), 'latin1')) ?? '');
    for (const mount of mounts) {
      this.#byId.set(mount.id, mount);
      this.#types.set(mount.device, mount.type);
    }
    return mounts;
  }

  isTmpfs(device: string | undefined): boolean {
    return device !== undefined && this.#types.get(device) === 'tmpfs';
  }

  /** Device of the file system of a mount. */
  deviceOf(id: string): string | undefined {
    return this.#byId.get(id)?.device;
  }
}

/** The mount namespace of a process; where that is hidden from us, one of its own. */
function namespaceOf(own: string): string {
  try {
    return readlinkSync(join(own, 'ns/mnt'));
  } catch {
    return own;
  }
}

/** Whether two mount namespaces are known, and not the same. */
function isOther(one: string, other: string): boolean {
  return one !== other && [one, other].every((name) => name.startsWith('mnt:'));
}

/** Files whose content is in memory alone, each counted once, whoever uses it. */
class MemoryFiles {
  readonly #mounts: Mounts;
  readonly #known = new Set<string>();
  bytes = 0;
  files = 0;
  /** Of those, what is on tmpfs mounts whose files are carried over anyway. */
  carriedBytes = 0;

  constructor(mounts: Mounts) {
    this.#mounts = mounts;
  }

  /**
   * Counts a file, if it is deleted or on a tmpfs. Shared anonymous memory, segments of System V and memfds
   * are deleted files, too (mm/shmem.c, ipc/shm.c). What a file on a tmpfs has in swap is among its blocks.
   * Other files are not looked at: their file systems may not answer.
   * @param isDeleted by its name in /proc; the rest of a name counts in the process's mount namespace alone
   * @param device `MAJOR:MINOR` of its file system; undefined if it is on none that is mounted
   * @param link a link of /proc that leads to it, whatever its name
   */
  add(isDeleted: boolean, device: string | undefined, link: string): void {
    if (!isDeleted && !this.#mounts.isTmpfs(device)) return;
    const stat = ifThere(() => statSync(link));
    if (stat === undefined || !stat.isFile()) return;
    const key = `${stat.dev} ${stat.ino}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    this.files++;
    this.bytes += stat.blocks * 512;
    if (!isDeleted && device !== undefined && this.#mounts.carried.has(device))
      this.carriedBytes += stat.blocks * 512;
  }
}

/** Counts each address space once. They are kept in the order in which the kernel has them. */
class AddressSpaces {
  readonly #pids: number[] = [];

  /** @returns false if the address space of a process is that of one that was counted */
  isNew(pid: number): boolean {
    let from = 0;
    let to = this.#pids.length;
    while (from < to) {
      const middle = (from + to) >>> 1;
      const order = compareAddressSpaces(pid, this.#pids[middle]!);
      if (order === 0) return false;
      // One of them has ended, or there is no kcmp: it counts for itself.
      if (order === undefined) return true;
      if (order < 0) to = middle;
      else from = middle + 1;
    }
    this.#pids.splice(from, 0, pid);
    return true;
  }
}

function fieldOf(status: string, name: string): number | undefined {
  const value = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1];
  return value === undefined ? undefined : Number(value);
}

/** `7f0000000000-7f0000002000` as the links of /proc/PID/map_files are called: without zeros before it. */
function mapFile(range: string): string {
  return range
    .split('-')
    .map((address) => address.replace(/^0+(?=.)/, ''))
    .join('-');
}

/** `00:1b` of /proc/PID/maps as mountinfo has it. */
function deviceOf(hexadecimal: string): string {
  return hexadecimal
    .split(':')
    .map((number) => Number.parseInt(number, 16))
    .join(':');
}

const DELETED = / \(deleted\)$/;

/** What could not be read of processes. It is told, and does not keep the rest from being counted. */
class Unread {
  count = 0;
  first: string | undefined;

  /** @returns what `read` returns; undefined if it throws */
  attempt<T>(what: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      this.count++;
      this.first ??= `${what}: ${messageOf(error)}`;
      return undefined;
    }
  }
}

/** @param own the process's directory in /proc; or, where its first thread has ended, that of another */
function addFiles(own: string, files: MemoryFiles, mounts: Mounts, unread: Unread): void {
  const maps = unread.attempt(own, () => ifThere(() => readFileSync(join(own, 'maps'), 'latin1'))) ?? '';
  for (const line of maps.split('\n')) {
    const [, range = '', device = '', name = ''] = /^(\S+) \S+ \S+ (\S+) [1-9]\d* +(.*)$/.exec(line) ?? [];
    if (name === '') continue;
    const link = join(own, 'map_files', mapFile(range));
    unread.attempt(link, () => files.add(DELETED.test(name), deviceOf(device), link));
  }
  for (const fd of unread.attempt(own, () => ifThere(() => readdirSync(join(own, 'fd')))) ?? []) {
    const link = join(own, 'fd', fd);
    unread.attempt(link, () => {
      const name = ifThere(() => nameOf(link));
      if (name === undefined || !name.startsWith('/')) return;
      const info = ifThere(() => readFileSync(join(own, 'fdinfo', fd), 'latin1')) ?? '';
      const mount = /^mnt_id:\s+(\d+)/m.exec(info)?.[1] ?? '';
      files.add(DELETED.test(name), mounts.deviceOf(mount), link);
    });
  }
}

/** What a link of /proc says; of a path that is longer than a page it says nothing but that. */
function nameOf(link: string): string {
  try {
    return readlinkSync(link, 'latin1');
  } catch (error) {
    if (codeOf(error) === 'ENAMETOOLONG') return '/';
    throw error;
  }
}

/**
 * Where /proc tells of the memory and the files of a process: of one whose first thread has ended, another
 * thread's directory does.
 */
function livingThread(own: string): { directory: string; status: string } | undefined {
  const read = (directory: string): string => readFileSync(join(directory, 'status'), 'latin1');
  const status = ifThere(() => read(own));
  if (status === undefined || fieldOf(status, 'RssAnon') !== undefined)
    return status === undefined ? undefined : { directory: own, status };
  for (const tid of ifThere(() => readdirSync(join(own, 'task'))) ?? []) {
    const directory = join(own, 'task', tid);
    const other = ifThere(() => read(directory));
    if (other !== undefined && fieldOf(other, 'RssAnon') !== undefined) return { directory, status: other };
  }
  return { directory: own, status };
}

/**
 * What the images of protected processes and their descendants would take if the kernel died now, and what
 * is carried over of tmpfs. No page is looked at, as smaps_rollup does: the kernel's own counts of anonymous
 * pages and of those in swap are asked for. The counts are a little behind what there is: some hundred pages
 * for each thread or processor. A page that parent and child still have in common counts for both, as each of
 * them has it in its images; an address space that both have (`vfork`) counts once.
 * @param pids those that the rules name
 * @param maxMebibytes `tmpfs.max-mebibytes` of the configuration
 */
export function imagesNeed(pids: readonly number[], maxMebibytes: number, proc = '/proc'): ImagesNeed {
  const mounts = new Mounts(proc);
  const memoryFiles = new MemoryFiles(mounts);
  const spaces = new AddressSpaces();
  const unread = new Unread();
  let bytes = 0;
  let files = 0;
  let sandboxBytes = 0;
  const outside = namespaceOf(join(proc, '1'));
  for (const pid of withDescendants(pids, liveParents(proc))) {
    const own = join(proc, String(pid));
    unread.attempt(own, () => {
      const living = livingThread(own);
      if (living === undefined) return;
      const { directory, status } = living;
      const before = bytes + memoryFiles.bytes;
      const threads = fieldOf(status, 'Threads') ?? 1;
      const memory = (fieldOf(status, 'RssAnon') ?? 0) + (fieldOf(status, 'VmSwap') ?? 0);
      bytes += PROCESS_BYTES + THREAD_BYTES * threads + (spaces.isNew(pid) ? memory * 1024 : 0);
      files += PROCESS_FILES + threads;
      mounts.see(pid);
      addFiles(directory, memoryFiles, mounts, unread);
      if (isOther(namespaceOf(own), outside)) sandboxBytes += bytes + memoryFiles.bytes - before;
    });
  }
  const all = tmpfsBytes(mounts, unread);
  return {
    processes: { bytes: bytes + memoryFiles.bytes, files: files + memoryFiles.files },
    tmpfsBytes: Math.min(Math.max(0, all - memoryFiles.carriedBytes), maxMebibytes * 2 ** 20),
    sandboxBytes,
    ...(unread.first === undefined ? {} : { unread: { count: unread.count, first: unread.first } }),
  };
}

/** What is on the tmpfs mounts whose files are carried over. */
function tmpfsBytes({ own, carried }: Mounts, unread: Unread): number {
  // One that another mount hides is not asked: that would answer for it, or never.
  const seen = own.filter((mount) => carried.has(mount.device) && mountOf(mount.path, own) === mount);
  const each = new Map(seen.map(({ device, path }) => [device, path]));
  return [...each.values()].reduce((sum, path) => {
    const found = unread.attempt(path, () => ifThere(() => statfsSync(path)));
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
  /** That more may be needed: some of it could not be looked at; undefined if all could. */
  readonly unknown: string | undefined;
  /** That the disk has to be faster than many are, and what to do; undefined if not. */
  readonly rateProblem: string | undefined;
}

/** Nothing could be told; `unknown` says why. */
export interface RoomUnknown {
  readonly need?: undefined;
  readonly problem?: undefined;
  readonly tmpfsProblem?: undefined;
  readonly rateProblem?: undefined;
  readonly unknown: string;
}

/** What of the configuration decides about the room. */
export interface RoomConfig {
  readonly images: { readonly directory: string };
  readonly tmpfs: { readonly 'max-mebibytes': number };
  readonly 'crash-kernel': { readonly 'time-limit-minutes': number };
}

/** What is asked of the program that looks. */
export interface RoomQuestion {
  readonly pids: readonly number[];
  readonly maxMebibytes: number;
  readonly directory: string;
}

/** Its answer. */
export interface RoomAnswer {
  readonly need: ImagesNeed;
  readonly free: FreeSpace;
}

/** Looks at processes and file systems, of which some may never answer: in a process of its own. */
export function answerRoom({ pids, maxMebibytes, directory }: RoomQuestion): RoomAnswer {
  return { need: imagesNeed(pids, maxMebibytes), free: freeSpace(directory) };
}

const LOOKING_PROGRAM = join(import.meta.dirname, 'images-need-main.ts');
/** It takes a second or two, ten where nothing is fast. */
const LOOKING_MILLISECONDS = 60_000;
/** Of what it says if it fails. */
const SAID_CHARACTERS = 300;

/** Asks a process of its own; in a bundle, which has no other programs, this one. */
function ask(question: RoomQuestion): RoomAnswer {
  if (!existsSync(LOOKING_PROGRAM)) return answerRoom(question);
  const { error, status, signal, stdout, stderr } = spawnSync(process.execPath, [LOOKING_PROGRAM], {
    input: JSON.stringify(question),
    encoding: 'utf8',
    timeout: LOOKING_MILLISECONDS,
    killSignal: 'SIGKILL',
    maxBuffer: 2 ** 20,
  });
  if (error !== undefined && codeOf(error) === 'ETIMEDOUT') {
    const seconds = LOOKING_MILLISECONDS / 1000;
    throw new Error(`a file system or a process has not answered within ${seconds} s`);
  }
  if (error !== undefined) throw error;
  if (status !== 0)
    throw new Error(stderr.trim().slice(-SAID_CHARACTERS) || `ended with ${signal ?? status}`);
  return JSON.parse(stdout);
}

/**
 * Compares what the images need now with what is free where they would be written. It neither throws nor
 * waits for what does not answer: nothing else may fail for it.
 * @param pids those that the rules name
 * @param answer who looks
 */
export function lookAtRoom(
  pids: () => readonly number[],
  config: RoomConfig,
  answer: (question: RoomQuestion) => RoomAnswer = ask,
): RoomFound | RoomUnknown {
  try {
    const { need, free } = answer({
      pids: pids(),
      maxMebibytes: config.tmpfs['max-mebibytes'],
      directory: config.images.directory,
    });
    return judgeRoom(need, roomOf(free), config['crash-kernel']['time-limit-minutes']);
  } catch (error) {
    return { unknown: `whether there is room for the images cannot be told: ${messageOf(error)}` };
  }
}

/** All that there is to say of it, a sentence each. */
export function roomSentences(
  room: Pick<RoomFound | RoomUnknown, 'problem' | 'tmpfsProblem' | 'rateProblem' | 'unknown'>,
): string[] {
  const all = [room.problem, room.tmpfsProblem, room.rateProblem, room.unknown];
  return all.filter((said) => said !== undefined);
}

/** Until the first image is written, and what restores take besides reading. */
const OTHER_SECONDS = 60;
/** What the configuration takes as crash-kernel.time-limit-minutes, at most. */
const MOST_MINUTES = 1440;

const mebibytes = (bytes: number): number => Math.ceil(bytes / 2 ** 20);

/**
 * The images, and the files on tmpfs, are written and read within the time limit of the resurrection, with
 * all the rest; those of services in sandboxes are read after that, in a time of their own.
 */
function rateProblemOf(
  { processes, tmpfsBytes, sandboxBytes = 0 }: ImagesNeed,
  minutes: number,
): string | undefined {
  const bytes = processes.bytes + tmpfsBytes;
  const moved = 2 * bytes - sandboxBytes;
  const rateOf = (count: number, limit: number): number =>
    count / Math.max(1, secondsForRestores(limit, OTHER_SECONDS));
  const problems: string[] = [];
  const rate = rateOf(moved, minutes);
  if (rate > COMMON_BYTES_PER_SECOND) {
    const enough = minutesFor(moved / COMMON_BYTES_PER_SECOND);
    const remedy =
      enough > MOST_MINUTES ? '' : `set crash-kernel.time-limit-minutes to ${enough} and arm again, `;
    problems.push(
      `the images of what is protected now have to be written and read within ${minutes} minutes, which takes a disk with ` +
        `more than ${mebibytes(rate)} MiB/s all the time, or the largest do not come back: ${remedy}` +
        'have images.directory on a disk that is as fast, or protect fewer processes',
    );
  }
  const sandboxRate = rateOf(sandboxBytes, SANDBOX_PROGRAM_MINUTES);
  if (sandboxRate > COMMON_BYTES_PER_SECOND)
    problems.push(
      `the images of services in sandboxes have to be read within ${SANDBOX_PROGRAM_MINUTES} minutes, whatever the ` +
        `configuration says, which takes a disk with more than ${mebibytes(sandboxRate)} MiB/s, or the largest do not ` +
        'come back: have images.directory on a disk that is as fast, or protect fewer processes',
    );
  return problems.length === 0 ? undefined : problems.join('; ');
}

/** The time limit with which so many seconds are left for what is written and read. */
function minutesFor(seconds: number): number {
  const perMinute = secondsForRestores(1, 0);
  return Math.ceil((seconds + OTHER_SECONDS) / perMinute);
}

/**
 * What there is to say of a need and a room.
 * @param minutes `time-limit-minutes` of the configuration
 */
export function judgeRoom(need: ImagesNeed, room: ImagesRoom, minutes: number): RoomFound {
  const { processes, tmpfsBytes, unread } = need;
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
    rateProblem: rateProblemOf(need, minutes),
    unknown:
      unread === undefined
        ? undefined
        : `images may need more than is said: ${unread.count} of what is protected could not be looked at, ` +
          `the first: ${unread.first}`,
  };
}
