import { type Sock, sockStruct } from '../../../../linux/sock.ts';
import { type TcpSock, tcpSock } from '../../../../linux/tcp.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';

/** An end of a connection, as it was read. */
export interface TcpEnd {
  readonly sock: Sock;
  readonly tcp: TcpSock;
}

/** What the ends and the queues of a connection are compared by, but for its state. */
const COMPARED = [
  ...(['write_seq', 'snd_nxt', 'snd_una', 'rcv_nxt', 'copied_seq'] as const),
  ...(['rcv_wup', 'rcv_wnd', 'snd_wl1', 'snd_wnd', 'max_window'] as const),
] as const;

/** What an end was when it was read: the addresses of members, their sizes and their values. */
type Reading = readonly (readonly [address: bigint, bytes: number, value: number])[];

function readingOf(kernel: Kernel, { sock, tcp }: TcpEnd): Reading {
  const [Sock, Tcp] = [kernel.bind(sockStruct), kernel.bind(tcpSock)];
  const at = (member: (typeof COMPARED)[number]): bigint => tcp.address + BigInt(Tcp.offsetOf(member));
  return [
    [sock.address + BigInt(Sock.offsetOf('state')), 1, sock.state],
    ...COMPARED.map((member) => [at(member), 4, tcp[member]] as const),
  ];
}

/**
 * Tells later whether a connection of a living kernel has moved since it was read: then what does not fit may
 * be of two moments. What stands still and does not fit is damage.
 */
export function watchOf(kernel: Kernel, ends: readonly TcpEnd[]): { hasMoved(): boolean } {
  const before = ends.flatMap((end) => readingOf(kernel, end));
  return {
    hasMoved: () =>
      before.some(
        ([address, bytes, value]) => kernel.memory.readNow(address, bytes).readUIntLE(0, bytes) !== value,
      ),
  };
}
