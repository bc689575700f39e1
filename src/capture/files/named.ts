import {
  dentryName,
  dentryStruct,
  initialMountNamespace,
  inodePaths,
  resolvePath,
} from '../../linux/dcache.ts';
import { type FileSystem, fileSystemOf, type Inode, inodeStruct, userDevice } from '../../linux/fs.ts';
import type { Mount } from '../../linux/mount.ts';
import { tmpfsXattrs } from '../../linux/xattr.ts';
import type { DirectoryToMake, ExtendedAttribute } from '../../model/file.ts';
import type { FileIdentity } from '../../model/open-file.ts';
import { PATH_MAX } from '../../system/abi.ts';
import { showText } from '../../system/byte-text.ts';
import { fileType, permissionsOf, typeOf } from '../../system/file-mode.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';

/** A dentry on a mount, with all that tells how it is found again. */
export interface NamedFile {
  readonly path: string;
  /** The name has been unlinked. */
  readonly deleted: boolean;
  readonly mount: Mount;
  readonly dentry: bigint;
  readonly inode: Inode;
  readonly fileSystem: FileSystem;
  readonly identity: FileIdentity;
  /** The mount namespace that the path is one of. */
  readonly namespace: bigint;
}

/** File systems whose files are memory of the kernel: they went with it, content and all. */
const memoryFileSystems: ReadonlySet<string> = new Set(['tmpfs', 'ramfs']);
/** File systems that the new kernel makes anew; a file in them is opened again by its path. */
const kernelFileSystems: ReadonlySet<string> = new Set([
  'devtmpfs',
  'devpts',
  'proc',
  'sysfs',
  'cgroup2',
  'securityfs',
  'debugfs',
  'tracefs',
]);

/** Whether files of a file system have to be made again, with their content. */
export function isMemoryFileSystem(name: string): boolean {
  return memoryFileSystems.has(name);
}

/** Whether the new kernel makes a file system's files anew. */
export function isKernelFileSystem(name: string): boolean {
  return kernelFileSystems.has(name);
}

/** Extended attributes of an inode that went with the kernel; none of one on a disk, where they still are. */
export function attributesOf(kernel: Kernel, fileSystem: FileSystem, inode: bigint): ExtendedAttribute[] {
  return fileSystem.name === 'tmpfs' ? tmpfsXattrs(kernel, inode) : [];
}

export function identityOf(inode: Inode, fileSystem: FileSystem): FileIdentity {
  return {
    fileSystem: fileSystem.name,
    onDisk: fileSystem.onDisk,
    inode: inode.i_ino,
    generation: inode.i_generation,
    mode: inode.i_mode,
    uid: inode.i_uid,
    gid: inode.i_gid,
    sizeBytes: inode.i_size,
    rdev: userDevice(inode.i_rdev),
  };
}

/**
 * What a file on a mount that no mount namespace shows is, by its file system: mqueue's is the IPC
 * namespace's own (ipc/mqueue.c), the other is mounted inside the kernel only (mm/secretmem.c).
 */
const hiddenFiles: Readonly<Record<string, (name: string) => string>> = {
  mqueue: (name) => `has the POSIX message queue /${name} open`,
  secretmem: () => 'has secret memory (memfd_secret)',
};

/**
 * Why a file on such a mount is refused; `name` is its last component, which is all the name that a file
 * inside the kernel has.
 */
export function withoutMountReason(
  fileSystem: string,
  name: string,
  path: string,
  root: 'detached' | 'internal',
): string {
  const known = hiddenFiles[fileSystem]?.(name);
  if (known !== undefined) return known;
  return root === 'detached'
    ? `has ${path} open on a ${fileSystem} file system that is no longer mounted there`
    : `has ${name} of the kernel's own ${fileSystem} file system open`;
}

function withoutMount(kernel: Kernel, address: bigint, path: string, root: 'detached' | 'internal'): string {
  const dentry = kernel.bind(dentryStruct).at(address);
  const { i_sb } = kernel.bind(inodeStruct).at(dentry.d_inode);
  // Files inside the kernel may have none.
  const name = showText(readable(() => dentryName(kernel, dentry)) ?? 'a file');
  return withoutMountReason(fileSystemOf(kernel, i_sb).name, name, path, root);
}

/** What naming a file depends on. */
export type Naming = Pick<CaptureContext, 'kernel' | 'sandboxes'>;

/**
 * The named file at a `struct path`. Throws a FileRefusal if it is in another mount namespace than its user,
 * on an unmounted file system, has no path at all, or is on a file system of which nothing is known; a
 * VmcoreError if it cannot be read.
 * @param namespace the mount namespace of who uses it; the initial one if not given
 */
export function namedFile(
  { kernel, sandboxes }: Naming,
  mnt: bigint,
  dentry: bigint,
  namespace: bigint = initialMountNamespace(kernel),
): NamedFile {
  const { path, deleted, root, mount } = resolvePath(kernel, mnt, dentry);
  const isSandboxed = sandboxes.unitOf(namespace) !== undefined;
  switch (root) {
    case 'other-namespace':
      if (mount.mnt_ns === namespace && isSandboxed) break;
      throw new FileRefusal(`has ${path} open in a mount namespace of its own`);
    case 'detached':
    case 'internal':
      throw new FileRefusal(withoutMount(kernel, dentry, path, root));
    case 'initial':
      if (isSandboxed) checkSeenInside(kernel, path, dentry, namespace);
  }
  const inode = kernel.bind(inodeStruct).at(kernel.bind(dentryStruct).at(dentry).d_inode);
  const fileSystem = fileSystemOf(kernel, inode.i_sb);
  const { name, onDisk } = fileSystem;
  if (!onDisk && !memoryFileSystems.has(name) && !kernelFileSystems.has(name)) {
    throw new FileRefusal(`has ${path} open on a ${name} file system`);
  }
  const identity = identityOf(inode, fileSystem);
  return { path, deleted, mount, dentry, inode, fileSystem, identity, namespace };
}

/**
 * What the service manager opens before it makes the sandbox (/dev/null, a log) is of the mounts outside, and
 * is opened again by its path inside: that has to lead to the same file. A device is the same by its number,
 * which is compared before the restore.
 */
function checkSeenInside(kernel: Kernel, path: string, address: bigint, namespace: bigint): void {
  const { d_inode } = kernel.bind(dentryStruct).at(address);
  const { i_mode, i_sb } = kernel.bind(inodeStruct).at(d_inode);
  if (typeOf(i_mode) === fileType.character) return;
  // On a disk it is known by its inode, whatever else is mounted over its path.
  const isKnown = fileSystemOf(kernel, i_sb).onDisk;
  if (isKnown && inodePaths(kernel, d_inode, namespace).some((inside) => inside.path === path)) return;
  throw new FileRefusal(`has ${path} open from outside its sandbox`);
}

/** No path has more directories. */
const MAX_DEPTH = PATH_MAX / 2;

/**
 * The directories above a file, below its mount point, the uppermost first; empty if they are on a disk. With
 * `self`, the file itself is one of them.
 */
export function directoriesAbove(kernel: Kernel, file: NamedFile, self = false): DirectoryToMake[] {
  if (!isMemoryFileSystem(file.fileSystem.name)) return [];
  const Dentry = kernel.bind(dentryStruct);
  const directories: DirectoryToMake[] = [];
  let path = file.path;
  let dentry = Dentry.at(file.dentry);
  for (let depth = 0; depth < MAX_DEPTH && dentry.address !== file.mount.mnt_root; depth++) {
    if (depth > 0 || self) {
      const { i_mode: mode, i_uid: uid, i_gid: gid } = kernel.bind(inodeStruct).at(dentry.d_inode);
      if (typeOf(mode) !== fileType.directory) break;
      const attributes = attributesOf(kernel, file.fileSystem, dentry.d_inode);
      directories.unshift({ path, mode: permissionsOf(mode), uid, gid, attributes });
    }
    dentry = Dentry.at(dentry.d_parent);
    path = path.slice(0, path.lastIndexOf('/'));
  }
  return directories;
}
