import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { BlockList } from 'node:net';
import { networkInterfaces } from 'node:os';
import { holdBackPackets } from '../../system/bpf.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { connectAnew } from './connect-anew.ts';
import { ip, LAST_METRIC } from './connection-network.ts';
import { INTERFACE } from './names.ts';
import type { GroupResource, GroupToRestore } from './resource.ts';
import { renewSegmentSizes } from './segment-sizes.ts';

/**
 * Largest packets while connections are made, as no network and no loopback has them. A socket has segments
 * of 536 bytes until the size of packets changes (tcp_current_mss, net/ipv4/tcp_output.c): it does when the
 * connection goes its own way again.
 */
const MTU = { interface: 1501, loopback: 65_535 } as const;
const LOOPBACK_MTU = '/sys/class/net/lo/mtu';
/** SOCCR_MARK (soccr/soccr.h): of the segments by which CRIU ends one side of a connection. */
const CRIU_MARK = 0xc114;

function deleteNetwork(): void {
  ip([`link delete ${INTERFACE}`]);
}

/**
 * An interface that leads nowhere, with addresses and routes to everybody: what a connection needs of a
 * network to be made again. The routes count for less than any other.
 */
function makeNetwork(addresses: readonly string[]): void {
  if (existsSync(`/sys/class/net/${INTERFACE}`)) deleteNetwork();
  // Without its own first interface, which nobody would take away.
  spawnSync('modprobe', ['-q', 'dummy', 'numdummies=0']);
  const [six, four] = [true, false].map((wanted) => addresses.filter((one) => one.includes(':') === wanted));
  const route = (all: string): string => `route add ${all} dev ${INTERFACE} metric ${LAST_METRIC}`;
  ip([`link add ${INTERFACE} mtu ${MTU.interface} type dummy`]);
  try {
    ip([
      `link set ${INTERFACE} up`,
      ...(four ?? []).map((address) => `address add ${address}/32 dev ${INTERFACE}`),
      ...(six ?? []).map((address) => `address add ${address}/128 dev ${INTERFACE} nodad`),
      ...(four?.length ? [route('0.0.0.0/0')] : []),
      ...(six?.length ? [route('::/0')] : []),
    ]);
  } catch (error) {
    deleteNetwork();
    throw error;
  }
}

/** @returns a function that gives the loopback the size of packets back that it had */
function changeLoopback(): () => void {
  const before = readFileSync(LOOPBACK_MTU, 'utf8');
  writeFileSync(LOOPBACK_MTU, String(MTU.loopback));
  return () => writeFileSync(LOOPBACK_MTU, before);
}

/** Those of some addresses that the machine does not have: the network may have come up before. */
export function missingAddresses(addresses: readonly string[]): string[] {
  const has = new BlockList();
  for (const { address, family } of Object.values(networkInterfaces()).flatMap((all) => all ?? []))
    has.addAddress(address, family === 'IPv6' ? 'ipv6' : 'ipv4');
  return addresses.filter((one) => !has.check(one, one.includes(':') ? 'ipv6' : 'ipv4'));
}

/**
 * Makes what TCP connections need to be made again: their own addresses, which the machine does not have yet,
 * and routes to their peers. Until all connections are there, nothing is sent through them: the other end of
 * one within the machine may not be there, and the kernel would answer with a reset. CRIU connects to itself
 * when it finds out what the kernel can do: that comes before.
 *
 * For a sandbox, the network may be up, and others use it. Then nothing comes through them either, of which
 * they would have half of their numbers; the loopback stays as it is, and so do addresses that are there.
 *
 * @param cgroup directory of the cgroup in which they are made
 * @returns a resource that takes all of it away when the connections are there. What they send then is lost
 * until the network is up, and sent again
 */
export function prepareConnections({
  plan: { connections, sockets },
  cgroup,
  inside,
}: Pick<GroupToRestore, 'cgroup' | 'inside'> & {
  readonly plan: Pick<RestorePlan, 'connections' | 'sockets'>;
}): GroupResource {
  if (connections === undefined) return { finish: () => [] };
  const { addresses } = connections;
  const undo: (() => void)[] = [];
  const end = (): string[] => undo.splice(0).reverse().flatMap(problemsOf);
  return {
    begin: () => {
      try {
        undo.push(holdBackPackets(cgroup, CRIU_MARK, inside === undefined ? ['sent'] : ['sent', 'received']));
        if (inside === undefined) undo.push(changeLoopback());
        if (addresses.length > 0) {
          makeNetwork(inside === undefined ? addresses : missingAddresses(addresses));
          undo.push(deleteNetwork);
        }
      } catch (error) {
        end();
        throw new Error(`its TCP connections cannot be made again: ${messageOf(error)}`, { cause: error });
      }
    },
    ready: () => {
      if (inside !== undefined) renewSegmentSizes(sockets);
      return [...connectAnew(connections.connects), ...end()];
    },
    finish: end,
  };
}

/** @returns a sentence if a step fails */
function problemsOf(step: () => void): string[] {
  try {
    step();
    return [];
  } catch (error) {
    return [`what was made for TCP connections cannot be taken away: ${messageOf(error)}`];
  }
}
