import { type Socket, socketConnected } from '../../../../linux/net.ts';
import { skbQueue } from '../../../../linux/skbuff.ts';
import { type Sock, tcpState } from '../../../../linux/sock.ts';
import { sequenceDistance, type TcpSock } from '../../../../linux/tcp.ts';
import { readable } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { disagree } from './tcp-queue.ts';

/** _Q_LOCKED_VAL, and _Q_SLOW_VAL of guests (kernel/locking/qspinlock_paravirt.h); 0 is nobody. */
const LOCKED: ReadonlySet<number> = new Set([0, 1, 3]);

/**
 * Whether a qspinlock can have a value (include/asm-generic/qspinlock_types.h, for fewer than 16384 CPUs): a
 * byte for who has it, one for who is next, then the last waiter's place in its nest and its CPU plus 1.
 */
function isSpinLock({ possibleCpus }: Kernel, value: number): boolean {
  const tail = value >>> 16;
  const cpu = (tail >>> 2) - 1;
  const isTail = tail === 0 || possibleCpus.includes(cpu);
  return LOCKED.has(value & 0xff) && ((value >>> 8) & 0xff) <= 1 && isTail;
}

/** Whether a pointer is none, or leads to an object of the kernel. */
function isPointer({ architecture, memory }: Kernel, pointer: bigint): boolean {
  if (pointer === 0n) return true;
  const isKernels = pointer >= architecture.kernelSpace.start && pointer % 8n === 0n;
  return isKernels && readable(() => memory.u64(pointer)) !== undefined;
}

/** TCP_URG_VALID with the byte, TCP_URG_NOTYET and TCP_URG_READ (include/net/tcp.h). */
function isUrgent(value: number): boolean {
  return value === 0 || value >>> 8 === 1 || value === 0x200 || value === 0x400;
}

/**
 * What a connection is lost for must be what the kernel can have written: otherwise it is damage, of which
 * nothing is known. Throws a FileRefusal.
 */
export function checkPlausible(kernel: Kernel, sock: Sock, tcp: TcpSock): void {
  const { owned, spinLock, backlogTail } = sock;
  const isLock = (owned === 0 || owned === 1) && isSpinLock(kernel, spinLock);
  if (!isLock || !isPointer(kernel, backlogTail)) disagree('its lock is impossible');
  // Whoever gives the lock back looks at them before (release_sock, net/core/sock.c).
  if (owned === 0 && spinLock === 0 && backlogTail !== 0n)
    disagree('it has packets that nobody was to look at');
  const { fastopen_rsk, fastopen_req, fastOpenContext, md5sig = 0n, ao = 0n, upperProtocol } = tcp;
  const pointers = [fastopen_rsk, fastopen_req, fastOpenContext, md5sig, ao, upperProtocol];
  if (!pointers.every((pointer) => isPointer(kernel, pointer))) disagree('a pointer of it leads nowhere');
  if (!isUrgent(tcp.urg_data) || sequenceDistance(tcp.snd_up, tcp.write_seq) < 0)
    disagree('its urgent data is impossible');
}

/** The order of its numbers holds at every moment, also while somebody works on it. Throws a FileRefusal. */
export function checkOrder(tcp: TcpSock): void {
  const { snd_una, snd_nxt, write_seq, copied_seq, rcv_wup, rcv_nxt } = tcp;
  const isSent = sequenceDistance(snd_una, snd_nxt) >= 0 && sequenceDistance(snd_nxt, write_seq) >= 0;
  const isReceived = sequenceDistance(copied_seq, rcv_nxt) >= 0 && sequenceDistance(rcv_wup, rcv_nxt) >= 0;
  if (!isSent || !isReceived) disagree('its numbers are out of order');
}

/**
 * A socket whose connection is being made says so twice, and has received nothing. Only the server of a TCP
 * Fast Open has one that its program has accepted already. Throws a FileRefusal.
 */
export function checkOpening(kernel: Kernel, socket: Pick<Socket, 'state'>, sock: Sock, tcp: TcpSock): void {
  checkOrder(tcp);
  if (socket.state !== socketConnected.connecting) {
    const isAccepted = socket.state === socketConnected.connected && tcp.fastopen_rsk !== 0n;
    if (sock.state !== tcpState.synReceived || !isAccepted) disagree('its two halves differ in their states');
    return;
  }
  // A segment of the peer's is the first that moves it from 0 (tcp_connect_init, net/ipv4/tcp_output.c).
  const hasHeard = sock.state === tcpState.synSent && tcp.rcv_nxt !== 0;
  if (hasHeard || skbQueue(kernel, sock.receiveQueue).length > 0)
    disagree('it has received before there was a connection');
}
