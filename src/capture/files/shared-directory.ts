import { randomBytes } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { dentryStruct, inodePaths, pathInFileSystem } from '../../linux/dcache.ts';
import { type Inode, inodeStruct } from '../../linux/fs.ts';
import { STICKY } from '../../system/file-mode.ts';
import { ownerOf } from '../private-directory.ts';
import type { NamedFile, Naming } from './named.ts';
import { FileRefusal } from './refusal.ts';

const WRITABLE_BY_ALL = 0o002;
/** See HIDDEN_DIRECTORY of the model; nobody can know it before, and be there first. */
const hidden = `.otherworld-${randomBytes(16).toString('hex')}`;

/**
 * The directory of a file in a sandbox, if everybody can write to it, outside of the sandbox too. What CRIU
 * makes there by a path, as root, while others run, somebody could lead elsewhere, and the directory cannot
 * be closed for them. (Who is in no sandbox is restored before anybody runs.)
 */
function sharedDirectory({ kernel, sandboxes }: Naming, file: NamedFile): Inode | undefined {
  if (sandboxes.unitOf(file.namespace) === undefined) return undefined;
  const Dentry = kernel.bind(dentryStruct);
  const directory = kernel.bind(inodeStruct).at(Dentry.at(Dentry.at(file.dentry).d_parent).d_inode);
  if ((directory.i_mode & WRITABLE_BY_ALL) === 0) return undefined;
  const isPrivate = ownerOf(pathInFileSystem(kernel, file.mount.mnt_root)) !== undefined;
  return isPrivate || inodePaths(kernel, directory.address).length === 0 ? undefined : directory;
}

function refusal(what: string): FileRefusal {
  return new FileRefusal(`has ${what}, which cannot be made in its sandbox: everybody can write there`);
}

/** Refuses a socket that is bound to a path where it cannot be made. */
export function refuseSharedSocket(context: Naming, file: NamedFile): void {
  if (sharedDirectory(context, file) !== undefined) throw refusal(`the unix socket ${file.path}`);
}

/**
 * Where a deleted file is made once more: by its path, or, where everybody can write, in a directory beside
 * it that is root's alone. Nobody takes that away from a directory of root's with the sticky bit.
 */
export function placeOfDeleted(context: Naming, file: NamedFile): string {
  const directory = sharedDirectory(context, file);
  if (directory === undefined) return file.path;
  if (directory.i_uid !== 0 || (directory.i_mode & STICKY) === 0)
    throw refusal(`the deleted file ${file.path} open`);
  return join(dirname(file.path), hidden, basename(file.path));
}
