import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, optional, pointer, s32, struct, u32, type ViewOf } from '../vmcore/view.ts';

/** `struct mount` (fs/mount.h), which embeds the `struct vfsmount` that everybody else points to. */
export const mountStruct = struct('mount', {
  mnt_parent: pointer,
  mnt_mountpoint: pointer,
  mnt_root: pointer.at('mnt.mnt_root'),
  mnt_sb: pointer.at('mnt.mnt_sb'),
  mnt_flags: u32.at('mnt.mnt_flags'),
  mnt_master: pointer,
  mnt_ns: pointer,
  mnt_id: s32,
  mnt_devname: pointer,
  mnt_instance: addressOf('mnt_instance'),
});

/**
 * Bits of `mnt_flags` (include/linux/mount.h): what a mount does not allow, and whether others get what is
 * mounted below it.
 */
export const MNT = {
  nosuid: 0x01,
  nodev: 0x02,
  noexec: 0x04,
  readonly: 0x40,
  nosymfollow: 0x80,
  shared: 0x1000,
  unbindable: 0x2000,
} as const;

export type Mount = ViewOf<typeof mountStruct>;

/**
 * `struct mnt_namespace` (fs/mount.h). 6.8 turned the list of its mounts into a tree ordered by id; before,
 * `mounts` is their number.
 */
export const mntNamespaceStruct = struct('mnt_namespace', {
  list: optional(addressOf()),
  mounts: addressOf(),
});

/** The mount around a `struct vfsmount`, or, with kind `mount`, at its own address. */
export function mountOf(kernel: Kernel, address: bigint, kind: 'vfsmount' | 'mount' = 'vfsmount'): Mount {
  const Mount = kernel.bind(mountStruct);
  return kind === 'mount' ? Mount.at(address) : Mount.containerOf(address, 'mnt');
}

/** The address of the `struct vfsmount` in a mount. */
export function vfsmountOf(kernel: Kernel, mount: Mount): bigint {
  return mount.address + BigInt(kernel.bind(mountStruct).offsetOf('mnt'));
}
