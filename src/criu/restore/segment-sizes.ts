import { closeSync } from 'node:fs';
import { takeDescriptor } from '../../system/descriptors.ts';
import { SOL_IP, setsockopt } from '../../system/sockets.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';

/** include/uapi/linux/in.h */
const IP_OPTIONS = 4;
const NONE = Buffer.alloc(0);

/**
 * Has connections reckon the size of their segments once more. CRIU connects a socket before it tells it what
 * the peer takes: it has segments of 536 bytes until the way of its packets changes. The kernel reckons anew
 * when IP options are set, if only to none, of IPv6 too (do_ip_setsockopt(), net/ipv4/ip_sockglue.c). Sockets
 * with IP options of their own do not come back, so nothing is lost.
 */
export function renewSegmentSizes(
  sockets: readonly Pick<RestorePlan['sockets'][number], 'pid' | 'fd'>[],
): void {
  for (const { pid, fd } of sockets) {
    const socket = takeDescriptor(pid, fd);
    if (socket < 0) continue;
    // What is no connection has none, and what fails leaves small segments.
    setsockopt(socket, SOL_IP, IP_OPTIONS, NONE, 0);
    closeSync(socket);
  }
}
