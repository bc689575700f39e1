import { dentryStruct, inodePaths, pathInFileSystem } from '../../linux/dcache.ts';
import { inodeStruct } from '../../linux/fs.ts';
import { ownerOf } from '../private-directory.ts';
import type { CaptureContext } from './context.ts';
import type { NamedFile } from './named.ts';
import { FileRefusal } from './refusal.ts';

const WRITABLE_BY_ALL = 0o002;

/**
 * Refuses what CRIU would make by its path, as root, while others run: in a directory that everybody can
 * write to, somebody could lead the path elsewhere, and the directory cannot be closed for others. That holds
 * in a sandbox alone (the others are restored before anybody runs), and not for what nobody outside of it
 * has.
 * @param what goes on after "has"
 */
export function refuseInShared({ kernel, sandboxes }: CaptureContext, file: NamedFile, what: string): void {
  if (sandboxes.unitOf(file.namespace) === undefined) return;
  const Dentry = kernel.bind(dentryStruct);
  const directory = kernel.bind(inodeStruct).at(Dentry.at(Dentry.at(file.dentry).d_parent).d_inode);
  if ((directory.i_mode & WRITABLE_BY_ALL) === 0) return;
  const isPrivate = ownerOf(pathInFileSystem(kernel, file.mount.mnt_root)) !== undefined;
  if (isPrivate || inodePaths(kernel, directory.address).length === 0) return;
  throw new FileRefusal(`has ${what}, which cannot be made in its sandbox: everybody can write there`);
}
