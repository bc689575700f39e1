import { readdirSync, readFileSync, readlinkSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { RoomNeeded } from '../report/images-room.ts';
import { isFilledAtBoot, TMPFS_MAGIC } from '../system/file-systems.ts';
import { usedBytes } from '../system/free-space.ts';
import { GROUP_FILES, PROCESS_FILES, THREAD_BYTES } from '../system/image-files.ts';
import { compareAddressSpaces } from '../system/kcmp.ts';
import { type MountEntry, mountEntries, mountOf } from '../system/mountinfo.ts';
import { ifThere } from '../system/proc.ts';
import { codeOf, messageOf } from '../system/thrown.ts';
import { liveParents, withDescendants } from './protected-need.ts';

/** What images of a process have besides pages: small files, and an entry for each area and descriptor. */
const PROCESS_BYTES = 128 << 10;
/** Each process may be a group of its own. */
const MOST_FILES = PROCESS_FILES + GROUP_FILES;

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
    const mounts = mountEntries(mountinfoOf(own));
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

/** One that has ended has no mounts, also while its number is there (EINVAL, fs/proc_namespace.c). */
function mountinfoOf(own: string): string {
  try {
    return ifThere(() => readFileSync(join(own, 'mountinfo'), 'latin1')) ?? '';
  } catch (error) {
    if (codeOf(error) === 'EINVAL') return '';
    throw error;
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
      files += MOST_FILES + threads;
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
