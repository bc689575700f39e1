import { dentryStruct, resolvePath } from '../../../linux/dcache.ts';
import { inodeStruct } from '../../../linux/fs.ts';
import { vfsmountOf } from '../../../linux/mount.ts';
import type { OwnMake } from '../../../model/open-file.ts';
import { fileType, isRootsAlone, typeOf } from '../../../system/file-mode.ts';
import { identityOf, type NamedFile, type Naming } from '../named.ts';
import { FileRefusal } from '../refusal.ts';

/**
 * The first directory on the way to a file in which others than root can make, take away or rename something;
 * undefined if there is none. Throws a VmcoreError if the way cannot be read.
 */
function openDirectory({ kernel }: Naming, { mount, dentry }: NamedFile): string | undefined {
  const { path, directories } = resolvePath(kernel, vfsmountOf(kernel, mount), dentry);
  const names = path.split('/').slice(1);
  const depth = directories.findIndex((directory) => {
    const { i_uid, i_mode } = kernel.bind(inodeStruct).at(kernel.bind(dentryStruct).at(directory).d_inode);
    return !isRootsAlone({ uid: i_uid, mode: i_mode });
  });
  return depth < 0 ? undefined : `/${names.slice(0, depth).join('/')}`;
}

/**
 * CRIU makes the files of sockets, and deleted files, by their paths, as root. For a process in a sandbox
 * that is done while others run: who can write to a directory on the way could lead it elsewhere. (Who is in
 * no sandbox is restored before anybody runs.)
 * @returns the first such directory; undefined if all of them are root's alone
 */
export function ledElsewhere(context: Naming, file: NamedFile): string | undefined {
  return context.sandboxes.unitOf(file.namespace) === undefined ? undefined : openDirectory(context, file);
}

/**
 * See {@link ledElsewhere}.
 * @param what `the deleted file /tmp/x open`
 * @throws FileRefusal if the directories above a file are not root's alone
 */
export function refuseUnlessRootsAlone(context: Naming, file: NamedFile, what: string): void {
  const open = ledElsewhere(context, file);
  if (open === undefined) return;
  throw new FileRefusal(
    `has ${what}, which cannot be made in its sandbox: others than root can write to ${open}`,
  );
}

/** What has to be known of something that this program makes. */
export function ownMakeOf({ kernel }: Naming, file: NamedFile): OwnMake {
  const { path, identity, fileSystem } = file;
  const Dentry = kernel.bind(dentryStruct);
  const above = Dentry.at(Dentry.at(file.dentry).d_parent).d_inode;
  return { path, identity, directory: identityOf(kernel.bind(inodeStruct).at(above), fileSystem) };
}

/**
 * The same of a deleted file, where others than root could lead CRIU elsewhere.
 * @returns undefined if CRIU can make it
 * @throws FileRefusal if it cannot be made at all: what is no regular file, or was in a directory that is
 * deleted as well
 */
export function deletedToMake(context: Naming, file: NamedFile): OwnMake | undefined {
  const { kernel } = context;
  const parent = kernel.bind(dentryStruct).at(file.dentry).d_parent;
  const isGone = resolvePath(kernel, vfsmountOf(kernel, file.mount), parent).deleted;
  if (isGone || typeOf(file.inode.i_mode) !== fileType.regular)
    refuseUnlessRootsAlone(context, file, `the deleted file ${file.path} open`);
  return ledElsewhere(context, file) === undefined ? undefined : ownMakeOf(context, file);
}
