import { closeSync, constants, fstatSync, fsyncSync, openSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import koffi from 'koffi';
import type { DirectoryIdentity, UnwrittenFile } from '../model/file.ts';
import { isSameFileSystem } from './file-system-identity.ts';
import { inodeGeneration } from './inode-generation.ts';
import { withFile } from './with-file.ts';

/** Why nothing can be written to a file; the message goes on after its path. */
export class WriteBackRefusal extends Error {
  override readonly name = 'WriteBackRefusal';
}

/** Directories that are held open at a time. */
const MAX_OPEN = 256;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
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

/** The name by which a file in an open directory can be given to any system call: no symbolic link is on the way. */
export function inDirectory(directory: number, name: string): string {
  return `/proc/self/fd/${directory}/${name}`;
}

/** Whether an open file or directory has the inode number and, where both are known, the generation of then. */
export function isSameInode(fd: number, was: DirectoryIdentity): boolean {
  if (fstatSync(fd).ino !== was.inode) return false;
  const generation = was.generation === 0 ? undefined : inodeGeneration(fd);
  return generation === undefined || generation === was.generation;
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

/** The entries of a block that getdents64(2) has filled. */
export function* directoryEntries(block: Buffer): Generator<Entry> {
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

/** An entry of a directory. */
export interface Entry {
  readonly inode: number;
  readonly name: string;
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

  /** A path of a name in it. */
  pathOf(name: string): string {
    return inDirectory(this.fd, name);
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
class NameIndex {
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

/**
 * The directories of the dead system. Every component of a path must be the very directory that it was (inode number and generation), and
 * none a symbolic link: the users of the dead system chose what its memory says, and what is written here is written as root.
 */
export class OldDirectories {
  readonly #root: string;
  readonly #open = new Map<string, OldDirectory>();
  /** Of all directories that ever were open here: what is written back changes them. */
  readonly #modified = new Map<string, bigint>();
  readonly #index = new NameIndex();

  /** @param root where the old root file system is mounted */
  constructor(root: string) {
    this.#root = root;
  }

  /**
   * The directory of a file and the file's name in it. The directory is valid until the next call. Throws a
   * WriteBackRefusal if a directory on the way is not there or is not the one it was.
   */
  parentOf({ path, directories }: UnwrittenFile): {
    readonly directory: OldDirectory;
    readonly name: string;
  } {
    const names = path.split('/').slice(1);
    const name = names.pop();
    if (name === undefined || directories.length !== names.length + 1) {
      throw new WriteBackRefusal('has no path that can be followed');
    }
    if (this.#open.size > MAX_OPEN) this.close();
    let at = '';
    let directory = this.#directory('/', this.#root, directories[0]);
    for (const [depth, component] of names.entries()) {
      at = `${at}/${component}`;
      directory = this.#directory(at, directory.pathOf(component), directories[depth + 1]);
    }
    return { directory, name };
  }

  #directory(path: string, opened: string, was: DirectoryIdentity | undefined): OldDirectory {
    let directory = this.#open.get(path);
    if (directory === undefined) {
      const fd = openDirectory(path, opened);
      const modified = this.#modified.get(path) ?? fstatSync(fd, { bigint: true }).mtimeNs;
      this.#modified.set(path, modified);
      directory = new OldDirectory(fd, modified, this.#index);
      this.#open.set(path, directory);
    }
    if (was !== undefined && isSameInode(directory.fd, was)) return directory;
    throw new WriteBackRefusal(`is in ${path}, which is another directory than before the panic`);
  }

  /** Closes all directories; they are opened again when they are asked for. */
  close(): void {
    for (const directory of this.#open.values()) directory.close();
    this.#open.clear();
    this.#index.clear();
  }
}

function openDirectory(path: string, opened: string): number {
  try {
    return openSync(opened, DIRECTORY);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT') throw new WriteBackRefusal(`is in ${path}, which is not on the disk`);
    if (code !== 'ENOTDIR' && code !== 'ELOOP') throw error;
    throw new WriteBackRefusal(`is in ${path}, which is a directory no longer`);
  }
}

/** Throws a WriteBackRefusal if an open file or directory is on another file system than a file was. */
export function checkFileSystem(fd: number, { fileSystem }: UnwrittenFile): void {
  if (!isSameFileSystem(fd, fileSystem)) {
    throw new WriteBackRefusal('is on another file system than before the panic');
  }
}
