import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  flags,
  optional,
  pointer,
  s32,
  s64,
  struct,
  u8,
  u16,
  u32,
  u64,
  uint,
  ulongNumber,
  type ViewOf,
} from '../vmcore/view.ts';

/** `struct socket_alloc`: a socket with its inode in sockfs. */
export const socketAlloc = struct('socket_alloc', {
  inode: ulongNumber.at('vfs_inode.i_ino'),
  socket: addressOf('socket'),
});

/** `struct sock` (include/net/sock.h): what all protocols have. */
export const sockStruct = struct('sock', {
  family: u16.at('__sk_common.skc_family'),
  state: u8.at('__sk_common.skc_state'),
  reuse: u8.at('__sk_common.skc_reuse'),
  reuseport: u8.at('__sk_common.skc_reuseport'),
  ipv6only: u8.at('__sk_common.skc_ipv6only'),
  boundInterface: s32.at('__sk_common.skc_bound_dev_if'),
  flags: flags.at('__sk_common.skc_flags'),
  net: pointer.at('__sk_common.skc_net.net'),
  sk_type: u16,
  sk_protocol: u16,
  sk_rcvbuf: s32,
  sk_sndbuf: s32,
  sk_userlocks: u8,
  sk_no_check_tx: u8,
  sk_shutdown: u8,
  sk_priority: u32,
  sk_mark: u32,
  sk_rcvlowat: s32,
  sk_rcvtimeo: s64,
  sk_sndtimeo: s64,
  sk_lingertime: ulongNumber,
  sk_ack_backlog: u32,
  sk_max_ack_backlog: u32,
  sk_filter: pointer,
  sk_reuseport_cb: pointer,
  sk_tsflags: uint,
  sk_bind_phc: s32,
  sk_peek_off: s32,
  sk_max_pacing_rate: u64,
  sk_ll_usec: optional(u32),
  sk_prefer_busy_poll: optional(u8),
  sk_busy_poll_budget: optional(u16),
  sk_reserved_mem: optional(u32),
  sk_txrehash: optional(u8),
  sk_socket: pointer,
  sk_err: s32,
  sk_peer_pid: pointer,
  sk_peer_cred: pointer,
  sk_user_data: pointer,
  sk_zckey: u32,
  cgroup: optional(pointer.at('sk_cgrp_data.cgroup')),
  // Nonzero while a processor is at the socket (sk_lock.slock), or a system call has it (sk_lock.owned).
  spinLock: u32.at('sk_lock.slock.rlock.raw_lock.val'),
  owned: s32.at('sk_lock.owned'),
  backlogTail: pointer.at('sk_backlog.tail'),
  retransmitQueue: addressOf('tcp_rtx_queue'),
  receiveQueue: addressOf('sk_receive_queue'),
  writeQueue: addressOf('sk_write_queue'),
  errorQueue: addressOf('sk_error_queue'),
});

export type Sock = ViewOf<typeof sockStruct>;

/** Whether a system call or a CPU had a socket when the kernel died. */
export function isAtWork({
  owned,
  spinLock,
  backlogTail,
}: Pick<Sock, 'owned' | 'spinLock' | 'backlogTail'>): boolean {
  return owned !== 0 || spinLock !== 0 || backlogTail !== 0n;
}

/** Address families (include/linux/socket.h). */
export const family = { unix: 1, inet: 2, inet6: 10, netlink: 16, packet: 17 } as const;

/** TCP states, used by all protocols (include/net/tcp_states.h). */
export const tcpState = {
  established: 1,
  synSent: 2,
  synReceived: 3,
  finWait1: 4,
  finWait2: 5,
  timeWait: 6,
  close: 7,
  closeWait: 8,
  lastAck: 9,
  listen: 10,
  closing: 11,
} as const;

/** The number of a socket's inode in sockfs. */
export function socketInode(kernel: Kernel, socket: bigint): number {
  return kernel.bind(socketAlloc).containerOf(socket, 'socket').inode;
}

/** The flags of enum sock_flags that options are made of; the numbers are the kernel's own enumerators. */
const optionFlags = {
  dead: 'SOCK_DEAD',
  done: 'SOCK_DONE',
  keepOpen: 'SOCK_KEEPOPEN',
  linger: 'SOCK_LINGER',
  broadcast: 'SOCK_BROADCAST',
  urgentInline: 'SOCK_URGINLINE',
  localRoute: 'SOCK_LOCALROUTE',
  debug: 'SOCK_DBG',
  receiveTimestamp: 'SOCK_RCVTSTAMP',
  nanoseconds: 'SOCK_RCVTSTAMPNS',
  newTimestamps: 'SOCK_TSTAMP_NEW',
  overflow: 'SOCK_RXQ_OVFL',
  wifiStatus: 'SOCK_WIFI_STATUS',
  noFcs: 'SOCK_NOFCS',
  selectErrorQueue: 'SOCK_SELECT_ERR_QUEUE',
  zeroCopy: 'SOCK_ZEROCOPY',
  filterLocked: 'SOCK_FILTER_LOCKED',
  transmitTime: 'SOCK_TXTIME',
  receiveMark: 'SOCK_RCVMARK',
} as const;

export type SockFlag = keyof typeof optionFlags;

/** Whether a bit of `sk_flags` is set. */
export function sockFlag(kernel: Kernel, sock: Sock, flag: SockFlag): boolean {
  return sock.flags.has(kernel.enumerator(optionFlags[flag]));
}
