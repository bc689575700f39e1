import { dentryStruct } from '../../linux/dcache.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
import type { NamedFile, Naming } from './named.ts';
import { FileRefusal } from './refusal.ts';

/**
 * Cgroups are directories that the service manager makes. It has made those of a sandbox by the time that
 * processes come back there, and none when others do: there is only the root then. Throws a FileRefusal for
 * what is below that.
 */
export function checkCgroup(
  { kernel, sandboxes }: Naming,
  {
    path,
    fileSystem,
    dentry,
    inode,
    namespace,
  }: Pick<NamedFile, 'path' | 'fileSystem' | 'dentry' | 'inode' | 'namespace'>,
): void {
  if (fileSystem.name !== 'cgroup2' || sandboxes.unitOf(namespace) !== undefined) return;
  const Dentry = kernel.bind(dentryStruct);
  const isRoot = (address: bigint): boolean => Dentry.at(address).d_parent === address;
  const isDirectory = typeOf(inode.i_mode) === fileType.directory;
  if (isRoot(isDirectory ? dentry : Dentry.at(dentry).d_parent)) return;
  throw new FileRefusal(`has ${path} open, in a cgroup that is not there yet when it would come back`);
}
