import { dentryName, dentryStruct } from '../../../linux/dcache.ts';
import { openFlags } from '../../../linux/file.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import type { NamedFile, Naming } from '../named.ts';
import { FileRefusal } from '../refusal.ts';

/** Files by which processes are moved, with the rights of who opened them (`__cgroup_procs_write`). */
const MOVES = new Set(['cgroup.procs', 'cgroup.threads']);

/**
 * Cgroups are directories that the service manager makes. By the time that a service comes back into its
 * sandbox there is the one of its unit, and there is the root alone when others come back. CRIU opens files
 * as root: one by which processes are moved would move any process of the system. Throws a FileRefusal for
 * such a file, and for what is not there.
 *
 * @param flags those of open(2)
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
  flags: number,
): void {
  if (fileSystem.name !== 'cgroup2') return;
  const Dentry = kernel.bind(dentryStruct);
  const isDirectory = typeOf(inode.i_mode) === fileType.directory;
  const file = Dentry.at(dentry);
  const cgroup = isDirectory ? file : Dentry.at(file.d_parent);
  if (!isDirectory && (flags & openFlags.accessMode) !== 0 && MOVES.has(dentryName(kernel, file)))
    throw new FileRefusal(`has ${path} open for writing, by which it would move processes as root`);
  const isRoot = cgroup.d_parent === cgroup.address;
  if (isRoot || dentryName(kernel, cgroup) === sandboxes.unitOf(namespace)) return;
  throw new FileRefusal(`has ${path} open, in a cgroup that is not there yet when it would come back`);
}
