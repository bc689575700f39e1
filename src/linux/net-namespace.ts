import { addressOf, struct, uint } from '../vmcore/view.ts';

/** `struct net` (include/net/net_namespace.h). */
export const netStruct = struct('net', {
  dev_base_head: addressOf('dev_base_head'),
  /** net.ipv4.tcp_retries2, of IPv6 too. */
  tcpRetries2: uint.at('ipv4.sysctl_tcp_retries2'),
});
