import { fstatSync, openSync } from 'node:fs';
import type { DirectoryIdentity, UnwrittenFile } from '../../model/file.ts';
import { codeOf } from '../../system/thrown.ts';
import { isSameInode } from './identity.ts';
import { DIRECTORY, NameIndex, OldDirectory } from './old-directory.ts';
import { WriteBackRefusal } from './refusal.ts';

/** Directories that are held open at a time. */
const MAX_OPEN = 256;

/**
 * The directories of the dead system. Every component of a path must be the very directory that it was (inode
 * number and generation), and none a symbolic link: the users of the dead system chose what its memory says,
 * and what is written here is written as root.
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
