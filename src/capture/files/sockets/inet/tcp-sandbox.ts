import { inetSock } from '../../../../linux/inet.ts';
import { type Sock, tcpState } from '../../../../linux/sock.ts';
import type { CaptureContext } from '../../context.ts';
import { showHolder } from '../../holders/holders.ts';
import { Connections, endsOf } from './tcp-ends.ts';

/**
 * Why a connection of a process in a sandbox does not come back, after "has a TCP connection". It is made
 * while the system boots: both ends of one within the machine then, or its other end would run before it is
 * there. One that is being made would need a way of its own to its peer in a system that others use.
 */
export function sandboxProblem(context: CaptureContext, sock: Sock): string | undefined {
  const { kernel, system } = context;
  const own = system.holdersOfObject(sock.address);
  if (!context.isSandboxed(own)) return undefined;
  if (sock.state === tcpState.synSent) return 'that is being made, in a sandbox';
  const ends = endsOf(sock, kernel.bind(inetSock).at(sock.address));
  const peer = context.of(Connections).peerOf(ends);
  if (peer === undefined || peer.network !== ends.network) return undefined;
  const home = context.namespaceOfHolders(own);
  const outsider = system
    .holdersOfObject(peer.socket)
    .find(({ isProtected, pid }) => isProtected && context.namespaceOf(pid) !== home);
  return outsider === undefined ? undefined : `with ${showHolder(outsider)}, which is not in its sandbox`;
}
