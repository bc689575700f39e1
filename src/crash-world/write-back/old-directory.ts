import { closeSync, constants, fsyncSync, openSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';
import type { UnwrittenFile } from '../../model/file.ts';
import { withFile } from '../with-file.ts';

/** Flags that open a directory, and nothing else by its name. */
export const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** linux/fs.h */
const RENAME_NOREPLACE = 1;
const RENAME_EXCHANGE = 2;
/** Names of directories that are kept at a time, and that a directory may have to be looked through: the crash world's memory is small. */
const MAX_NAMES = 1 << 16;
/** Where the members of a `struct dirent64` are (getdents64(2)). */
const ENTRY = { inode: 0, length: 16, name: 19 };

const libc = koffi.load('libc.so.6');
const renameat2 = libc.func(
  'int renameat2(int olddirfd, const char *oldpath, int newdirfd, const char *newpath, unsigned int flags)',
);
const getdents64 = libc.func('long getdents64(int fd, _Out_ uint8_t *buffer, size_t size)');

/** An entry of a directory. */
export interface Entry {
  readonly inode: number;
  readonly name: string;
}

/** The entries of a block that getdents64(2) has filled. */
function* directoryEntries(block: Buffer): Generator<Entry> {
  for (let at = 0; at < block.length; ) {
    const next = at + block.readUInt16LE(at + ENTRY.length);
    const end = block.indexOf(0, at + ENTRY.name);
    yield {
      inode: Number(block.readBigUInt64LE(at + ENTRY.inode)),
      name: block.toString('utf8', at + ENTRY.name, end),
    };
    at = next;
  }
}

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

  /** Whether the disk has the directory as it was some time before the panic: names can differ, and memory is right about them. */
  isOlderThan({ directoryModifiedNanoseconds }: UnwrittenFile): boolean {
    return this.#modifiedNanoseconds < directoryModifiedNanoseconds;
  }

  /** By this a name in it can be given to any system call: no symbolic link is on the way. */
  pathOf(name: string): string {
    return `/proc/self/fd/${this.fd}/${name}`;
  }

  /**
   * The name that an inode has in it on the disk; undefined if there is none, or there are too many names to look. Throws an Error if the directory
   * cannot be read.
   */
  nameOf(inode: number): string | undefined {
    return this.#index.namesIn(this).get(inode);
  }

  /** Gives an entry a name that is free. Throws an Error if that cannot be done. */
  move(entry: Entry, to: string): void {
    this.#rename(entry.name, to, RENAME_NOREPLACE);
    this.#index.changed(this, { ...entry, name: to });
  }

  /** Exchanges the names of two entries, at once. Throws an Error if that cannot be done. */
  exchange(one: Entry, other: Entry): void {
    this.#rename(one.name, other.name, RENAME_EXCHANGE);
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

  #rename(from: string, to: string, flags: number): void {
    if (renameat2(this.fd, from, this.fd, to, flags) === 0) return;
    const errno = koffi.errno();
    const [name = errno] = Object.entries(osConstants.errno).find(([, value]) => value === errno) ?? [];
    throw new Error(`${from} cannot be renamed to ${to}: ${name}`);
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

  changed(directory: OldDirectory, { inode, name }: Entry): void {
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
  const block = Buffer.alloc(1 << 16);
  return withFile(openSync(directory.pathOf('.'), DIRECTORY), (fd) => {
    for (;;) {
      const length = Number(getdents64(fd, block, block.length));
      if (length < 0) throw new Error(`its directory cannot be read (errno ${koffi.errno()})`);
      if (length === 0) return names;
      for (const { inode, name } of directoryEntries(block.subarray(0, length))) {
        if (name !== '.' && name !== '..') names.set(inode, name);
      }
      if (names.size > MAX_NAMES) return new Map();
    }
  });
}
