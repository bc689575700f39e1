import { readFileSync, writeFileSync } from 'node:fs';
import { codeOf } from './thrown.ts';

const switches = ['/proc/sys/net/ipv4/ip_nonlocal_bind', '/proc/sys/net/ipv6/ip_nonlocal_bind'];

const OFF = '0';
/**
 * On, as any value but 0 is (both are bytes without limits, net/ipv4/sysctl_net_ipv4.c and its like of IPv6;
 * inet_can_nonlocal_bind()). Nobody else writes this one: who finds it knows whose it is, and that the switch
 * was off.
 */
const OURS = '2';

function read(path: string): string {
  return readFileSync(path, 'latin1').trim();
}

/**
 * Runs a step while sockets may be bound to addresses that the machine does not have yet: the network comes
 * up after the processes. Does nothing about a switch that cannot be set. A value that is set meanwhile
 * stays; if this program is killed, `endNonlocalBind` finds what it has left.
 */
export async function withNonlocalBind<T>(
  step: () => Promise<T>,
  paths: readonly string[] = switches,
): Promise<T> {
  for (const path of paths) {
    try {
      if (read(path) === OFF) writeFileSync(path, OURS);
    } catch {
      // IPv6 may be left out of the kernel; a socket that cannot be bound is named by CRIU.
    }
  }
  try {
    return await step();
  } finally {
    endNonlocalBind(paths);
  }
}

/** Puts back the switches that a restore has set, where they are still as it has set them. */
export function endNonlocalBind(paths: readonly string[] = switches): void {
  for (const path of paths) {
    try {
      if (read(path) === OURS) writeFileSync(path, OFF);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
    }
  }
}
