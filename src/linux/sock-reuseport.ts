import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct } from '../vmcore/view.ts';
import type { Sock } from './sock.ts';

/** `struct sock_reuseport` (include/net/sock_reuseport.h): the sockets of a group. */
export const sockReuseport = struct('sock_reuseport', { prog: pointer });

/** Whether a program chooses among the sockets of an SO_REUSEPORT group. */
export function hasReuseportProgram(kernel: Kernel, sock: Sock): boolean {
  return sock.sk_reuseport_cb !== 0n && kernel.bind(sockReuseport).at(sock.sk_reuseport_cb).prog !== 0n;
}
