import { hex, readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { initialMountNamespace, resolvePath } from '../dcache.ts';
import { fileSystemOf, superBlockStruct } from '../fs.ts';
import { listReadEntries } from '../list.ts';
import { type Mount, mntNamespaceStruct, mountStruct } from '../mount.ts';
import { rbTreeForEachEntry } from '../rbtree.ts';

/** fs.mount-max of a system that has raised it far. */
const MAX_MOUNTS = 1_000_000;

/** One line of a dead kernel's /proc/mounts. */
export interface MountPoint {
  readonly path: string;
  /** Name of the file system type. */
  readonly type: string;
  /** What mount(8) shows as source: a device, or a name that was given. */
  readonly source: string;
  readonly mount: Mount;
}

/** The mounts of a namespace, and what of them cannot be read. */
export interface MountTable {
  /** A mount comes after the one it is mounted on. */
  readonly points: readonly MountPoint[];
  readonly problems: readonly string[];
}

/**
 * The mounts of a namespace, the initial one if no other is given. Where the namespace's own list of them is
 * damaged, those that the super blocks know are put with what is left of it. A mount that cannot be read is
 * named and left out. Throws a VmcoreError if the namespace itself is not known.
 */
export function readMounts(kernel: Kernel, namespace: bigint = initialMountNamespace(kernel)): MountTable {
  const { mounts, damage } = mountsOf(kernel, namespace);
  const problems = damage === undefined ? [] : [`the list of mounts: ${damage}`];
  const more = damage === undefined ? [] : mountsBySuperBlock(kernel, namespace);
  const points: MountPoint[] = [];
  for (const mount of new Map([...mounts, ...more].map((one) => [one.address, one])).values()) {
    try {
      points.push(mountPoint(kernel, mount));
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      problems.push(`the mount at ${hex(mount.address)}: ${error.message}`);
    }
  }
  const byDepth = (a: MountPoint, b: MountPoint): number => depthOf(a) - depthOf(b);
  return { points: damage === undefined ? points : points.toSorted(byDepth), problems };
}

function depthOf({ path }: MountPoint): number {
  return path === '/' ? 0 : path.split('/').length;
}

function mountPoint(kernel: Kernel, mount: Mount): MountPoint {
  const mnt = BigInt(kernel.bind(mountStruct).offsetOf('mnt'));
  const { path } = resolvePath(kernel, mount.address + mnt, mount.mnt_root);
  return {
    path,
    type: fileSystemOf(kernel, mount.mnt_sb).name,
    source: mount.mnt_devname === 0n ? 'none' : kernel.memory.cstring(mount.mnt_devname, 4096),
    mount,
  };
}

interface Mounts {
  readonly mounts: readonly Mount[];
  readonly damage: string | undefined;
}

function mountsOf(kernel: Kernel, namespace: bigint): Mounts {
  const Mounts = kernel.bind(mountStruct);
  const { list, mounts: root } = kernel.bind(mntNamespaceStruct).at(namespace);
  if (list !== undefined) {
    const { entries, damage } = listReadEntries(kernel, list, Mounts, 'mnt_list', MAX_MOUNTS);
    return { mounts: entries, damage };
  }
  const mounts: Mount[] = [];
  try {
    for (const mount of rbTreeForEachEntry(kernel, root, Mounts, 'mnt_node', MAX_MOUNTS)) mounts.push(mount);
    return { mounts, damage: undefined };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { mounts, damage: error.message };
  }
}

function mountsBySuperBlock(kernel: Kernel, namespace: bigint): Mount[] {
  const SuperBlock = kernel.bind(superBlockStruct);
  const Mounts = kernel.bind(mountStruct);
  const all = listReadEntries(kernel, kernel.symbol('super_blocks'), SuperBlock, 's_list');
  return all.entries
    .flatMap(({ s_mounts }) => listReadEntries(kernel, s_mounts, Mounts, 'mnt_instance', MAX_MOUNTS).entries)
    .filter((mount) => readable(() => mount.mnt_ns) === namespace);
}
