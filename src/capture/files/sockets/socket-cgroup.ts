import { filtersPackets } from '../../../linux/cgroup.ts';
import type { Sock } from '../../../linux/sock.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { FileRefusal } from '../refusal.ts';

/**
 * Throws a FileRefusal if BPF programs of a cgroup look at the packets of a socket. A socket stays in the
 * cgroup in which it is made (cgroup_sk_alloc, kernel/cgroup/cgroup.c): one that is made again is in that of
 * the restore, where they would not see it.
 */
export function checkSocketCgroup(kernel: Kernel, { cgroup }: Pick<Sock, 'cgroup'>): void {
  if (cgroup === undefined || cgroup === 0n || !filtersPackets(kernel, cgroup)) return;
  throw new FileRefusal('has a socket in a cgroup whose traffic is filtered (IPAddressDeny= or the like)');
}
