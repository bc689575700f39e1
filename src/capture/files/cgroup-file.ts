import { pathInFileSystem } from '../../linux/dcache.ts';
import { fileType, typeOf } from '../../system/file-mode.ts';
import type { NamedFile, Naming } from './named.ts';
import { FileRefusal } from './refusal.ts';

/**
 * A file or a directory of a cgroup is opened again by its path, so the cgroup has to be there. That of a
 * service is when the service comes back into its sandbox; whoever is in no sandbox is restored before the
 * system boots, when there is the root cgroup alone.
 * @throws FileRefusal if it is one of another cgroup; VmcoreError
 */
export function refuseFileOfCgroup(
  { kernel, sandboxes }: Naming,
  { path, fileSystem, dentry, namespace, inode }: NamedFile,
): void {
  if (fileSystem.name !== 'cgroup2' || sandboxes.unitOf(namespace) !== undefined) return;
  const names = pathInFileSystem(kernel, dentry).split('/').filter(Boolean);
  const isDirectory = typeOf(inode.i_mode) === fileType.directory;
  if (names.length > (isDirectory ? 0 : 1))
    throw new FileRefusal(`has ${path} open, of a cgroup that is made when the system boots`);
}
