import { readFileSync, writeFileSync } from 'node:fs';
import { holdBackPackets } from '../../system/bpf.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { connectAnew } from './connect-anew.ts';
import { deleteNetwork, endLending, lendNetwork, makeNetwork } from './connection-network.ts';
import type { GroupResource, GroupToRestore } from './resource.ts';
import { renewSegmentSizes } from './segment-sizes.ts';

/** Largest packets of the loopback while connections are made; see the interface's. */
const MTU = 65_535;
const LOOPBACK_MTU = '/sys/class/net/lo/mtu';
/** SOCCR_MARK (soccr/soccr.h): of the segments by which CRIU ends one side of a connection. */
const CRIU_MARK = 0xc114;

/** @returns a function that gives the loopback the size of packets back that it had */
function changeLoopback(): () => void {
  const before = readFileSync(LOOPBACK_MTU, 'utf8');
  writeFileSync(LOOPBACK_MTU, String(MTU));
  return () => writeFileSync(LOOPBACK_MTU, before);
}

/**
 * Makes what TCP connections need to be made again: their own addresses, which the machine does not have yet,
 * and routes to their peers. Until all connections are there, nothing is sent through them: the other end of
 * one within the machine may not be there, and the kernel would answer with a reset. CRIU connects to itself
 * when it finds out what the kernel can do: that comes before.
 *
 * For a sandbox, the network may be up, and others use it. Then nothing comes through them either, of which
 * they would have half of their numbers; the loopback stays as it is, and so does what others see of the
 * network.
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
          if (inside === undefined) makeNetwork(addresses);
          else lendNetwork(addresses);
          undo.push(inside === undefined ? deleteNetwork : () => endLending(addresses));
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
