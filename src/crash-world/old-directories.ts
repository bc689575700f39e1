import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import type { DirectoryIdentity, UnwrittenFile } from '../model/file.ts';
import { isSameFileSystem } from './file-system-identity.ts';
import { inodeGeneration } from './inode-generation.ts';

/** Why nothing can be written to a file; the message goes on after its path. */
export class WriteBackRefusal extends Error {
  override readonly name = 'WriteBackRefusal';
}

/** Directories that are held open at a time. */
const MAX_OPEN = 256;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

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

/**
 * The directories of the dead system. Every component of a path must be the very directory that it was (inode number and generation), and
 * none a symbolic link: the users of the dead system chose what its memory says, and what is written here is written as root.
 */
export class OldDirectories {
  readonly #root: string;
  readonly #open = new Map<string, number>();

  /** @param root where the old root file system is mounted */
  constructor(root: string) {
    this.#root = root;
  }

  /**
   * The descriptor of the directory of a file and the file's name in it. The descriptor is valid until the next call. Throws a
   * WriteBackRefusal if a directory on the way is not there or is not the one it was.
   */
  parentOf({ path, directories }: UnwrittenFile): { readonly directory: number; readonly name: string } {
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
      directory = this.#directory(at, inDirectory(directory, component), directories[depth + 1]);
    }
    return { directory, name };
  }

  #directory(path: string, opened: string, was: DirectoryIdentity | undefined): number {
    let fd = this.#open.get(path);
    if (fd === undefined) {
      fd = openDirectory(path, opened);
      this.#open.set(path, fd);
    }
    if (was !== undefined && isSameInode(fd, was)) return fd;
    throw new WriteBackRefusal(`is in ${path}, which is another directory than before the panic`);
  }

  /** Closes all directories. */
  close(): void {
    for (const fd of this.#open.values()) closeSync(fd);
    this.#open.clear();
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

/** Whether nothing has that name any more. */
export function isMissing(error: unknown): boolean {
  return codeOf(error) === 'ENOENT';
}
