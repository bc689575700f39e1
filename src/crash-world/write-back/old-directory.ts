import { closeSync, constants, fsyncSync, openSync } from 'node:fs';
import type { UnwrittenFile } from '../../model/file.ts';
import { type DirectoryEntry, directoryEntries } from '../../system/directory-entries.ts';
import { errnoText } from '../../system/errno.ts';
import { renameIn } from '../../system/file-calls.ts';
import { messageOf } from '../../system/thrown.ts';
import { withFile } from '../files/with-file.ts';

/** Flags that open a directory, and nothing else by its name. */
export const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/**
 * Names of directories that are kept at a time, and that a directory may have to be looked through: the crash
 * world's memory is small.
 */
const MAX_NAMES = 1 << 16;
/** A directory of the dead system, held open. */
export class OldDirectory {
  readonly fd: number;
  /** When a name in it was last made or taken away, as far as the disk knew when it was mounted. */
  readonly #modifiedNanoseconds: bigint;
  readonly #index: NameIndex;

  /** @param modifiedNanoseconds its time on the disk before anything was written back */
  constructor(fd: number, modifiedNanoseconds: bigint, index: NameIndex) {
    this.fd = fd;
    this.#modifiedNanoseconds = modifiedNanoseconds;
    this.#index = index;
  }

  /**
   * Whether the disk has the directory as it was some time before the panic: names can differ, and memory is
   * right about them.
   */
  isOlderThan({ directoryModifiedNanoseconds }: UnwrittenFile): boolean {
    return this.#modifiedNanoseconds < directoryModifiedNanoseconds;
  }

  /** By this a name in it can be given to any system call: no symbolic link is on the way. */
  pathOf(name: string): string {
    return `/proc/self/fd/${this.fd}/${name}`;
  }

  /**
   * The name that an inode has in it on the disk; undefined if there is none, or there are too many names to
   * look. Throws an Error if the directory cannot be read.
   */
  nameOf(inode: number): string | undefined {
    return this.#index.namesIn(this).get(inode);
  }

  /** Gives an entry a name that is free. Throws an Error if that cannot be done. */
  move(entry: DirectoryEntry, to: string): void {
    this.#rename(entry.name, to, 'noreplace');
    this.#index.changed(this, { ...entry, name: to });
  }

  /** Exchanges the names of two entries, at once. Throws an Error if that cannot be done. */
  exchange(one: DirectoryEntry, other: DirectoryEntry): void {
    this.#rename(one.name, other.name, 'exchange');
    this.#index.changed(this, { ...one, name: other.name });
    this.#index.changed(this, { ...other, name: one.name });
  }

  /** Brings its names to the disk. */
  sync(): void {
    fsyncSync(this.fd);
  }

  close(): void {
    closeSync(this.fd);
  }

  #rename(from: string, to: string, how: 'noreplace' | 'exchange'): void {
    const result = renameIn(this.fd, from, to, how);
    if (result < 0) throw new Error(`${from} cannot be renamed to ${to}: ${errnoText(-result)}`);
  }
}

/** The names of directories by inode, for as many directories as have room. */
export class NameIndex {
  readonly #names = new Map<OldDirectory, Map<number, string>>();
  #size = 0;

  namesIn(directory: OldDirectory): ReadonlyMap<number, string> {
    let names = this.#names.get(directory);
    if (names === undefined) {
      names = readNames(directory);
      if (this.#size + names.size > MAX_NAMES) this.clear();
      this.#size += names.size;
      this.#names.set(directory, names);
    }
    return names;
  }

  changed(directory: OldDirectory, { inode, name }: DirectoryEntry): void {
    this.#names.get(directory)?.set(inode, name);
  }

  clear(): void {
    this.#names.clear();
    this.#size = 0;
  }
}

/** None of a directory that has too many. */
function readNames(directory: OldDirectory): Map<number, string> {
  const names = new Map<number, string>();
  return withFile(openSync(directory.pathOf('.'), DIRECTORY), (fd) => {
    try {
      for (const { inode, name } of directoryEntries(fd)) {
        if (name !== '.' && name !== '..') names.set(inode, name);
        if (names.size > MAX_NAMES) return new Map();
      }
    } catch (error) {
      throw new Error(`its directory cannot be read: ${messageOf(error)}`, { cause: error });
    }
    return names;
  });
}
