import { isWholeText, showText } from '../vmcore/byte-text.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';

/** include/linux/cgroup-defs.h: a task's place in the default (version 2) hierarchy. */
const taskCgroups = struct('task_struct', { cgroups: pointer });
const cssSet = struct('css_set', { dfl_cgrp: pointer });
const cgroup = struct('cgroup', { kn: pointer });

/** include/linux/kernfs.h. 6.15 renamed `parent`, which may only be followed under RCU since, to `__parent`. */
const kernfsNode = struct('kernfs_node', { parent: pointer, name: pointer });
const kernfsNodeRcu = struct('kernfs_node', { parent: pointer.at('__parent'), name: pointer });

/** Deepest hierarchy that is followed; cgroup.max.depth has no limit by default, systemd's trees have at most ten levels. */
const MAX_DEPTH = 64;
const NAME_MAX = 255;

/**
 * The path of a task's cgroup below the root of the version 2 hierarchy, as in `/proc/PID/cgroup`: `/` or `/system.slice/x.service`.
 * @param task address of the `task_struct`
 * @throws ContainerError if the way up does not end, or is not UTF-8
 */
export function cgroupPath(kernel: Kernel, task: bigint): string {
  const set = kernel.bind(taskCgroups).at(task).cgroups;
  const group = kernel.bind(cgroup).at(kernel.bind(cssSet).at(set).dfl_cgrp);
  const Node = kernel.bind(kernel.hasMember('kernfs_node', '__parent') ? kernfsNodeRcu : kernfsNode);
  const parts: string[] = [];
  for (let node = Node.at(group.kn); node.parent !== 0n; node = Node.at(node.parent)) {
    if (parts.length === MAX_DEPTH) {
      throw new ContainerError('cgroup', group.address, `has more than ${MAX_DEPTH} ancestors`);
    }
    parts.push(kernel.memory.cstring(node.name, NAME_MAX + 1));
  }
  const path = `/${parts.toReversed().join('/')}`;
  if (!isWholeText(path)) {
    throw new ContainerError('cgroup', group.address, `has a name that is not UTF-8: ${showText(path)}`);
  }
  return path;
}
