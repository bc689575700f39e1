import { dentryName, dentryStruct, resolveAnyPath } from '../linux/dcache.ts';
import { type File, fileSystemOf, type Inode } from '../linux/fs.ts';
import { mountOf } from '../linux/mount.ts';
import { nsCommonStruct } from '../linux/ns-common.ts';
import { procNsOperationsStruct } from '../linux/proc-ns.ts';
import { showText } from '../system/byte-text.ts';
import type { Kernel } from '../vmcore/kernel.ts';

const MAX_NS_NAME = 32;

/**
 * Names of files that have no path, by file system, as the d_dname operation of each gives them. 6.9 moved
 * pidfds from anon_inodefs to pidfs without changing their name.
 */
const names: Readonly<Record<string, (kernel: Kernel, file: File, inode: Inode) => string>> = {
  pipefs: (_, __, { i_ino }) => `pipe:[${i_ino}]`,
  sockfs: (_, __, { i_ino }) => `socket:[${i_ino}]`,
  anon_inodefs: (kernel, file) =>
    `anon_inode:${showText(dentryName(kernel, kernel.bind(dentryStruct).at(file.f_dentry)))}`,
  pidfs: () => 'anon_inode:[pidfd]',
  nsfs: (kernel, _, { i_ino, i_private }) => {
    const operations = kernel.bind(procNsOperationsStruct).at(kernel.bind(nsCommonStruct).at(i_private).ops);
    return `${kernel.memory.cstring(operations.name, MAX_NS_NAME)}:[${i_ino}]`;
  },
};

/**
 * What readlink(2) of /proc/PID/fd/N gives for an open file, and /proc/PID/maps for a mapped one. A name that
 * is not UTF-8 is written as `showText` (byte-text.ts) writes it. Throws a VmcoreError where structures are
 * damaged.
 */
export function openFileName(kernel: Kernel, file: File, inode: Inode): string {
  const fileSystem = fileSystemOf(kernel, inode.i_sb).name;
  const special = Object.hasOwn(names, fileSystem) ? names[fileSystem] : undefined;
  if (special !== undefined) return special(kernel, file, inode);
  const { path, deleted, root } = resolveAnyPath(kernel, file.f_mnt, file.f_dentry);
  const dentry = kernel.bind(dentryStruct).at(file.f_dentry);
  const isRoot = dentry.address === mountOf(kernel, file.f_mnt).mnt_root;
  // Files of the kernel's own tmpfs (memfd, shared anonymous memory, System V) are no child of its root, and
  // never had a name to lose: simple_dname().
  if (root === 'internal' && dentry.d_parent === dentry.address && !isRoot) {
    return `${showText(`/${dentryName(kernel, dentry)}`)} (deleted)`;
  }
  const shown = showText(path);
  return deleted || root === 'internal' ? `${shown} (deleted)` : shown;
}
