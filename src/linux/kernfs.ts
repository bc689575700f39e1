import { pointer, struct } from '../vmcore/view.ts';

/**
 * `struct kernfs_node` (include/linux/kernfs.h). 6.15 renamed `parent`, which may only be followed under RCU
 * since, to `__parent`.
 */
export const kernfsNodeStruct = struct('kernfs_node', {
  parent: pointer.at('__parent', 'parent'),
  name: pointer,
});

/** `struct kernfs_open_file`: an open file of sysfs or of a cgroup. */
export const kernfsOpenFileStruct = struct('kernfs_open_file', { priv: pointer });
