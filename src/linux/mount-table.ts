import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, struct } from '../vmcore/view.ts';
import { initialMountNamespace, resolvePath } from './dcache.ts';
import { fileSystemOf } from './fs.ts';
import { listForEachEntry } from './list.ts';
import { type Mount, mountStruct } from './mount.ts';
import { rbTreeForEachEntry } from './rbtree.ts';

/** 6.8 turned the list of a namespace's mounts into a tree ordered by id. */
const namespaceList = struct('mnt_namespace', { list: addressOf() });
const namespaceTree = struct('mnt_namespace', { mounts: addressOf() });

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

/**
 * The mounts of the initial namespace in the order in which the kernel keeps them (a mount comes after the one it is mounted on).
 * Throws a ContainerError if the list is damaged.
 */
export function* forEachMountPoint(kernel: Kernel): Generator<MountPoint> {
  const namespace = initialMountNamespace(kernel);
  for (const mount of mountsOf(kernel, namespace)) {
    const mnt = BigInt(kernel.bind(mountStruct).offsetOf('mnt'));
    const { path } = resolvePath(kernel, mount.address + mnt, mount.mnt_root);
    yield {
      path,
      type: fileSystemOf(kernel, mount.mnt_sb).name,
      source: mount.mnt_devname === 0n ? 'none' : kernel.memory.cstring(mount.mnt_devname, 4096),
      mount,
    };
  }
}

function mountsOf(kernel: Kernel, namespace: bigint): Generator<Mount> {
  const Mounts = kernel.bind(mountStruct);
  if (kernel.hasMember('mount', 'mnt_node')) {
    const { mounts } = kernel.bind(namespaceTree).at(namespace);
    return rbTreeForEachEntry(kernel, mounts, Mounts, 'mnt_node', MAX_MOUNTS);
  }
  const { list } = kernel.bind(namespaceList).at(namespace);
  return listForEachEntry(kernel, list, Mounts, 'mnt_list', MAX_MOUNTS);
}
