import type { Kernel } from '../vmcore/kernel.ts';
import { optional, pointer, struct } from '../vmcore/view.ts';

/** `struct nsproxy` (include/linux/nsproxy.h). */
export const nsproxyStruct = struct('nsproxy', {
  uts_ns: pointer,
  ipc_ns: pointer,
  mnt_ns: pointer,
  pid_ns_for_children: pointer,
  net_ns: pointer,
  time_ns: optional(pointer),
  time_ns_for_children: optional(pointer),
  cgroup_ns: pointer,
});

export type NamespaceKind = 'uts' | 'ipc' | 'mnt' | 'pid' | 'net' | 'time' | 'cgroup';

/** Addresses of the namespaces of a task (`task_struct.nsproxy`), by kind. */
export function namespacesOf(kernel: Kernel, nsproxy: bigint): ReadonlyMap<NamespaceKind, bigint> {
  const proxy = kernel.bind(nsproxyStruct).at(nsproxy);
  const all: [NamespaceKind, bigint | undefined][] = [
    ['uts', proxy.uts_ns],
    ['ipc', proxy.ipc_ns],
    ['mnt', proxy.mnt_ns],
    ['pid', proxy.pid_ns_for_children],
    ['net', proxy.net_ns],
    ['time', proxy.time_ns_for_children],
    ['cgroup', proxy.cgroup_ns],
  ];
  return new Map(all.filter((entry): entry is [NamespaceKind, bigint] => entry[1] !== undefined));
}
