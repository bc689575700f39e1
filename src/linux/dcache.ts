import { NAME_MAX, PATH_MAX } from '../system/abi.ts';
import { bytesToText, isWholeText, showText, textToBytes } from '../system/byte-text.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, optional, pointer, struct, u32, type ViewOf } from '../vmcore/view.ts';
import { settledWalk } from './container.ts';
import { inodeStruct, superBlockStruct } from './fs.ts';
import { hlistForEachEntry, listForEachEntry } from './list.ts';
import { type Mount, mountOf, mountStruct, vfsmountOf } from './mount.ts';
import { nsproxyStruct } from './nsproxy.ts';

/** `struct dentry` (include/linux/dcache.h). */
export const dentryStruct = struct('dentry', {
  d_parent: pointer,
  d_nameLength: u32.at('d_name.len'),
  d_nameAddress: pointer.at('d_name.name'),
  d_inode: pointer,
  d_sb: pointer,
  d_hashPprev: pointer.at('d_hash.pprev'),
  d_alias: addressOf('d_u.d_alias'),
  // 6.8 turned the list of a directory's entries into an hlist
  d_children: optional(addressOf()),
  d_subdirs: optional(addressOf()),
});

export type Dentry = ViewOf<typeof dentryStruct>;

/**
 * A dentry's name, as text that stands for its bytes (byte-text.ts). Throws a ContainerError if too long or
 * empty.
 */
export function dentryName(kernel: Kernel, dentry: Dentry): string {
  const length = dentry.d_nameLength;
  if (length === 0 || length > NAME_MAX) {
    throw new ContainerError('dentry', dentry.address, `has a name of ${length} bytes`);
  }
  const bytes = kernel.memory.read(dentry.d_nameAddress, length);
  if (bytes.includes(0)) throw new ContainerError('dentry', dentry.address, 'has a zero byte in its name');
  return bytesToText(bytes);
}

/** d_unlinked: not in the hash of names any more, and not the root of its file system. */
export function isUnlinked(dentry: Dentry): boolean {
  return dentry.d_hashPprev === 0n && dentry.d_parent !== dentry.address;
}

/**
 * What the dentry cache knows in a directory: on tmpfs everything that is there. Negative dentries and
 * unlinked ones are left out. Throws a ContainerError, after what comes before it, where the list is damaged
 * or longer than `limit`.
 */
export function dentryChildren(kernel: Kernel, directory: bigint, limit: number): Generator<Dentry> {
  return settledWalk(kernel, () => walkChildren(kernel, directory, limit));
}

function* walkChildren(kernel: Kernel, directory: bigint, limit: number): Generator<Dentry> {
  const Dentry = kernel.bind(dentryStruct);
  const { d_children, d_subdirs = 0n } = Dentry.at(directory);
  const children =
    d_children === undefined
      ? listForEachEntry(kernel, d_subdirs, Dentry, 'd_child', limit)
      : hlistForEachEntry(kernel, d_children, Dentry, 'd_sib', limit);
  for (const child of children) {
    if (child.d_parent !== directory) {
      throw new ContainerError('dentry', directory, 'lists an entry of another directory');
    }
    if (child.d_inode !== 0n && !isUnlinked(child)) yield child;
  }
}

/**
 * Whether the dentry cache knows something by a name in a directory. Throws a VmcoreError if the directory's
 * list is damaged or longer than `limit`.
 */
export function hasChild(kernel: Kernel, directory: bigint, name: string, limit: number): boolean {
  const { length } = textToBytes(name);
  for (const child of dentryChildren(kernel, directory, limit)) {
    if (child.d_nameLength === length && dentryName(kernel, child) === name) return true;
  }
  return false;
}

/** Where a path ends when it is followed upwards. */
export type PathRoot =
  | 'initial' // the root of the initial mount namespace
  | 'other-namespace'
  | 'detached' // a lazily unmounted file system
  | 'internal'; // a kernel-internal mount: pipefs, sockfs, anonymous inodes, shmem

export interface ResolvedPath {
  /** Absolute from the root of its mount namespace; from the file system's root if detached or internal. */
  readonly path: string;
  /**
   * The dentries of the directories above it, as a walk from the root meets them: one for each component of
   * the path, the root first.
   */
  readonly directories: readonly bigint[];
  /** The last component has been unlinked. */
  readonly deleted: boolean;
  readonly root: PathRoot;
  readonly mount: Mount;
}

function rootKind(kernel: Kernel, top: Mount): PathRoot {
  const namespace = top.mnt_ns;
  if (namespace === 0n) return 'detached';
  // MNT_NS_INTERNAL is ERR_PTR(-EINVAL) (fs/mount.h).
  if (namespace >= 0xffff_ffff_ffff_f000n) return 'internal';
  return namespace === initialMountNamespace(kernel) ? 'initial' : 'other-namespace';
}

/** Address of the mount namespace that the system booted into. */
export function initialMountNamespace(kernel: Kernel): bigint {
  return kernel.bind(nsproxyStruct).at(kernel.symbol('init_nsproxy')).mnt_ns;
}

/**
 * A name or path that can be used as one. Throws a ContainerError if its bytes are not UTF-8: opened as text,
 * they would name another file.
 */
export function requireWholePath(dentry: bigint, path: string): string {
  if (isWholeText(path)) return path;
  throw new ContainerError('dentry', dentry, `has a name that is not UTF-8: ${showText(path)}`);
}

/**
 * The path of a dentry on a mount, as d_path(9) builds it but from the root of the namespace instead of the
 * process's. `vfsmount` is `path.mnt`. Throws a ContainerError if the way up does not end within PATH_MAX
 * bytes, or is not UTF-8.
 */
export function resolvePath(kernel: Kernel, vfsmount: bigint, dentryAddress: bigint): ResolvedPath {
  const resolved = resolveAnyPath(kernel, vfsmount, dentryAddress);
  requireWholePath(dentryAddress, resolved.path);
  return resolved;
}

/** The same for a path that is only shown: its text may stand for bytes that are not UTF-8 (byte-text.ts). */
export function resolveAnyPath(kernel: Kernel, vfsmount: bigint, dentryAddress: bigint): ResolvedPath {
  const Dentry = kernel.bind(dentryStruct);
  const first = mountOf(kernel, vfsmount);
  let mount = first;
  let dentry = Dentry.at(dentryAddress);
  const deleted = isUnlinked(dentry);
  const parts: string[] = [];
  const directories: bigint[] = [];
  let length = 0;
  for (let steps = 0; steps <= PATH_MAX; steps++) {
    const escaped = dentry.d_parent === dentry.address && dentry.address !== mount.mnt_root;
    if (dentry.address === mount.mnt_root || escaped) {
      if (mount.mnt_parent === mount.address || escaped) {
        const path = `/${parts.toReversed().join('/')}`;
        const kind = rootKind(kernel, first);
        const isMounted = kind === 'initial' || kind === 'other-namespace';
        const root = escaped && isMounted ? 'detached' : kind;
        return { path, directories: directories.toReversed(), deleted, root, mount: first };
      }
      dentry = Dentry.at(mount.mnt_mountpoint);
      mount = mountOf(kernel, mount.mnt_parent, 'mount');
      continue;
    }
    const name = dentryName(kernel, dentry);
    length += dentry.d_nameLength + 1;
    if (length > PATH_MAX) break;
    parts.push(name);
    dentry = Dentry.at(dentry.d_parent);
    directories.push(dentry.address);
  }
  throw new ContainerError('dentry', dentryAddress, 'has a path that does not end');
}

/** Names of one inode, and mounts of one super block, that are looked at. */
const MAX_ALIASES = 65536;

function isBelow(kernel: Kernel, dentry: Dentry, root: bigint): boolean {
  const Dentry = kernel.bind(dentryStruct);
  let at = dentry;
  for (let depth = 0; depth < PATH_MAX; depth++) {
    if (at.address === root) return true;
    if (at.d_parent === at.address) return false;
    at = Dentry.at(at.d_parent);
  }
  return false;
}

/**
 * The path of a dentry in its own file system, as the fourth field of /proc/PID/mountinfo has that of a mount
 * (proc(5)). Throws a ContainerError if the way up does not end.
 */
export function pathInFileSystem(kernel: Kernel, address: bigint): string {
  const Dentry = kernel.bind(dentryStruct);
  const parts: string[] = [];
  let dentry = Dentry.at(address);
  for (let depth = 0; depth < PATH_MAX; depth++) {
    if (dentry.d_parent === dentry.address)
      return requireWholePath(address, `/${parts.toReversed().join('/')}`);
    parts.push(dentryName(kernel, dentry));
    dentry = Dentry.at(dentry.d_parent);
  }
  throw new ContainerError('dentry', address, 'has a path that does not end');
}

/**
 * The paths by which an inode can be reached in a mount namespace, the initial one if no other is given, as
 * far as the dentry cache knows its names: one a name, on the first mount that shows it. Names that are not
 * UTF-8 are left out if there is another one. Throws a ContainerError if there is none, or if the cache is
 * damaged.
 */
export function inodePaths(
  kernel: Kernel,
  inode: bigint,
  namespace: bigint = initialMountNamespace(kernel),
): ResolvedPath[] {
  const { i_dentry, i_sb } = kernel.bind(inodeStruct).at(inode);
  const { s_mounts } = kernel.bind(superBlockStruct).at(i_sb);
  const mounts = [
    ...listForEachEntry(kernel, s_mounts, kernel.bind(mountStruct), 'mnt_instance', MAX_ALIASES),
  ].filter((mount) => mount.mnt_ns === namespace);
  const paths: ResolvedPath[] = [];
  let unreadable: ContainerError | undefined;
  for (const dentry of hlistForEachEntry(
    kernel,
    i_dentry,
    kernel.bind(dentryStruct),
    'd_alias',
    MAX_ALIASES,
  )) {
    if (isUnlinked(dentry)) continue;
    const mount = mounts.find(({ mnt_root }) => isBelow(kernel, dentry, mnt_root));
    if (mount === undefined) continue;
    try {
      paths.push(resolvePath(kernel, vfsmountOf(kernel, mount), dentry.address));
    } catch (error) {
      if (!(error instanceof ContainerError)) throw error;
      unreadable = error;
    }
  }
  if (paths.length === 0 && unreadable !== undefined) throw unreadable;
  return paths;
}
