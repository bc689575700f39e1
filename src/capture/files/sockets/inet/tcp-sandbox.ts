import { inetFlag, inetSock } from '../../../../linux/inet.ts';
import { ipv6Flag, ipv6PinfoOf } from '../../../../linux/ipv6.ts';
import { netStruct } from '../../../../linux/net-namespace.ts';
import { type Sock, sockFlag, sockStruct, tcpState } from '../../../../linux/sock.ts';
import { type TcpSock, tcpSettings, tcpSock } from '../../../../linux/tcp.ts';
import { isLoopbackAddress } from '../../../../system/ip-address.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import type { CaptureContext } from '../../context.ts';
import { type Holder, showHolder } from '../../holders/holders.ts';
import { Connections, type Ends, endsOf } from './tcp-ends.ts';

/**
 * How long the end of a connection that comes back first has to wait for the other one: as long as a system
 * takes to boot up to a service. An end that would give up before, by what its program has set or its system
 * for all (what was set when the kernel died is set again in the boot), is not kept. An end that gives up all
 * the same is found when the other one is there.
 */
const WAIT_SECONDS = 120;
/** net.ipv4.tcp_keepalive_time, _intvl and _probes, as the kernel has them (tcp(7)). */
const KEEPALIVE = { idleSeconds: 7200, intervalSeconds: 75, count: 9 } as const;

/** The states in which both ends may still go on: a FIN of both leaves nothing that tells who is there. */
const goingOn: ReadonlySet<number> = new Set([
  ...[tcpState.established, tcpState.closeWait, tcpState.finWait1, tcpState.finWait2],
]);

/**
 * Whether the two ends of a connection within the machine come back at different times: one of them is in a
 * sandbox, and the other one is not, or in another one.
 */
export function areApart(
  context: CaptureContext,
  own: readonly Holder[],
  others: readonly Holder[],
): boolean {
  const all = [...own, ...others].filter(({ isProtected }) => isProtected);
  return context.isSandboxed(all) && new Set(all.map(({ pid }) => context.namespaceOf(pid))).size > 1;
}

/** TCP_RTO_MIN and TCP_RTO_MAX (include/net/tcp.h), in seconds. */
const [SHORTEST, LONGEST] = [0.2, 120] as const;

/**
 * Seconds after which an end gives up for which the system has so many tries, at the earliest
 * (tcp_model_timeout(), net/ipv4/tcp_timer.c): the time between two of them doubles.
 */
export function secondsOfRetries(retries: number): number {
  const doubled = Math.min(retries, Math.floor(Math.log2(LONGEST / SHORTEST)));
  return (2 ** (doubled + 1) - 1) * SHORTEST + (retries - doubled) * LONGEST;
}

/** Seconds after which an end gives up that gets no answer, and by what. */
export function patienceOf(
  tcp: { readonly userTimeout: number },
  retries: number,
  isKeptAlive: boolean,
  settings: Pick<ReturnType<typeof tcpSettings>, 'keepIdleSeconds' | 'keepIntervalSeconds' | 'keepCount'>,
): { readonly seconds: number; readonly by: string } {
  const all = { seconds: secondsOfRetries(retries), by: 'net.ipv4.tcp_retries2' };
  const user = tcp.userTimeout === 0 ? [] : [{ seconds: tcp.userTimeout / 1000, by: 'TCP_USER_TIMEOUT' }];
  const {
    keepIdleSeconds: idle = KEEPALIVE.idleSeconds,
    keepIntervalSeconds: interval = KEEPALIVE.intervalSeconds,
    keepCount: count = KEEPALIVE.count,
  } = settings;
  const kept = isKeptAlive ? [{ seconds: idle + interval * count, by: 'SO_KEEPALIVE' }] : [];
  return [...user, ...kept].reduce((least, one) => (one.seconds < least.seconds ? one : least), all);
}

function hasErrors(kernel: Kernel, sock: Sock): boolean {
  const inet = kernel.bind(inetSock).at(sock.address);
  const six = ipv6PinfoOf(kernel, inet);
  return (
    inetFlag(kernel, inet, 'recverr') || (six !== undefined && ipv6Flag(kernel, inet, six, 'recverr') === 1)
  );
}

/** Why an end cannot wait for the other one, of one that may be the first of the two. */
function impatience(kernel: Kernel, sock: Sock, tcp: TcpSock): string | undefined {
  const isKeptAlive = sockFlag(kernel, sock, 'keepOpen');
  // It would take the word that it is to send again for an error of its own.
  if (hasErrors(kernel, sock)) return 'has errors of the network told to it (IP_RECVERR)';
  const { tcpRetries2 } = kernel.bind(netStruct).at(sock.net);
  const patience = patienceOf(tcp, tcpRetries2, isKeptAlive, tcpSettings(kernel, tcp));
  if (patience.seconds >= WAIT_SECONDS) return undefined;
  return `gives up after ${Math.round(patience.seconds)} s without an answer (${patience.by})`;
}

/** Why a connection of which the ends come back at different times cannot be kept. */
function apartProblem(
  context: CaptureContext,
  { own, peer }: Ends,
  ends: readonly { readonly at: bigint; readonly holders: readonly Holder[] }[],
): string | undefined {
  const { kernel } = context;
  if (!isLoopbackAddress(own.address) || !isLoopbackAddress(peer.address))
    return ', by another address than the loopback';
  const sandboxed = ends.filter(({ holders }) => context.isSandboxed(holders));
  for (const { at, holders } of ends) {
    const sock = kernel.bind(sockStruct).at(at);
    if (!goingOn.has(sock.state)) return ', and which both ends have begun to end';
    // Who is in no sandbox is there first.
    const isLast = sandboxed.length === 1 && sandboxed[0]?.at === at;
    const [holder] = holders;
    if (isLast || holder === undefined) continue;
    const why = impatience(kernel, sock, kernel.bind(tcpSock).at(at));
    if (why !== undefined) return `, and the end of ${showHolder(holder)} ${why}`;
  }
  return undefined;
}

/**
 * Why a connection of a process in a sandbox, or to one, does not come back, after "has a TCP connection". It
 * is made while the system boots. One that is being made would need a way of its own to its peer in a system
 * that others use. The other end of one within the machine may be made before, and waits: nothing is answered
 * to it until then.
 */
export function sandboxProblem(context: CaptureContext, sock: Sock): string | undefined {
  const { kernel, system } = context;
  const own = system.holdersOfObject(sock.address);
  if (sock.state === tcpState.synSent)
    return context.isSandboxed(own) ? 'that is being made, in a sandbox' : undefined;
  const ends = endsOf(sock, kernel.bind(inetSock).at(sock.address));
  const peer = context.of(Connections).peerOf(ends);
  if (peer === undefined || peer.network !== ends.network) return undefined;
  const others = system.holdersOfObject(peer.socket);
  const other = others.find(({ isProtected }) => isProtected);
  if (other === undefined || !areApart(context, own, others)) return undefined;
  const both = [
    { at: sock.address, holders: own },
    { at: peer.socket, holders: others },
  ];
  const problem = apartProblem(context, ends, both);
  return problem === undefined
    ? undefined
    : `with ${showHolder(other)}, which is not in the same sandbox${problem}`;
}
