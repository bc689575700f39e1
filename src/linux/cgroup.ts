import { NAME_MAX } from '../system/abi.ts';
import { isWholeText, showText } from '../system/byte-text.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, optional, pointer, struct, u64 } from '../vmcore/view.ts';
import { kernfsNodeStruct } from './kernfs.ts';
import { taskAt } from './sched.ts';

/**
 * `struct css_set` (include/linux/cgroup-defs.h), `cgroups` of a task: its place in the default (version 2)
 * hierarchy, and the state of each controller that holds for it, its cgroup's own or that of an ancestor.
 */
export const cssSetStruct = struct('css_set', { dfl_cgrp: pointer, subsys: addressOf() });
/** What a controller keeps of a cgroup begins with its `css`. */
export const cgroupSubsysStateStruct = struct('cgroup_subsys_state', { parent: pointer });
/** `struct pids_cgroup` (kernel/cgroup/pids.c). */
export const pidsCgroupStruct = struct('pids_cgroup', { css: addressOf(), limit: u64.at('limit.counter') });
/** `struct cgroup`. BPF programs of cgroups may not be built. */
export const cgroupStruct = struct('cgroup', { kn: pointer, programs: optional(addressOf('bpf.effective')) });

/**
 * CGROUP_INET_INGRESS and CGROUP_INET_EGRESS (enum cgroup_bpf_attach_type, include/linux/bpf-cgroup-defs.h),
 * the first two as in enum bpf_attach_type of the user API.
 */
const PACKET_PROGRAMS = [0n, 1n] as const;

/**
 * Whether BPF programs look at the packets of sockets that belong to a cgroup, its own or those of cgroups
 * above it: IPAddressDeny= and its like of systemd. What is at the root counts for every socket, and not
 * here: the root alone is a variable of the kernel (cgrp_dfl_root), all others are allocated.
 */
export function filtersPackets(kernel: Kernel, cgroup: bigint): boolean {
  if (kernel.symbolAt(cgroup) !== undefined) return false;
  const { programs } = kernel.bind(cgroupStruct).at(cgroup);
  if (programs === undefined) return false;
  return PACKET_PROGRAMS.some((type) => {
    const list = kernel.memory.u64(programs + 8n * type);
    // A bpf_prog_array has its programs behind an rcu_head; one without any ends at once with 0.
    return kernel.memory.u64(list + BigInt(kernel.sizeOf('callback_head'))) !== 0n;
  });
}

/**
 * Deepest hierarchy that is followed; cgroup.max.depth has no limit by default, systemd's trees have at most
 * ten levels.
 */
const MAX_DEPTH = 64;

/**
 * The path of a task's cgroup below the root of the version 2 hierarchy, as in `/proc/PID/cgroup`: `/` or
 * `/system.slice/x.service`.
 * @param task address of the `task_struct`
 * @throws ContainerError if the way up does not end, or is not UTF-8
 */
export function cgroupPath(kernel: Kernel, task: bigint): string {
  const set = taskAt(kernel, task).cgroups;
  const group = kernel.bind(cgroupStruct).at(kernel.bind(cssSetStruct).at(set).dfl_cgrp);
  const Node = kernel.bind(kernfsNodeStruct);
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
