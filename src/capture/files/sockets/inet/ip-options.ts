import { type InetFlag, type InetSock, inetFlag } from '../../../../linux/inet.ts';
import { type Ipv6Pinfo, ipv6Flag, ipv6PinfoOf, rxoptFlag } from '../../../../linux/ipv6.ts';
import type { Sock } from '../../../../linux/sock.ts';
import { changedOptions, type LateOption } from '../../../../model/socket-option.ts';
import { SOCK_STREAM } from '../../../../system/abi.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { FileRefusal } from '../../refusal.ts';

/** IP_PMTUDISC_WANT, and IP_PMTUDISC_DONT, which sockets start with if net.ipv4.ip_no_pmtu_disc is set. */
const PMTUDISC_WANT = 1;

/**
 * Interfaces that the program chose to send through. Those for multicast of a stream are the kernel's own:
 * the one that an accepted connection came in on (tcp_v4_syn_recv_sock, tcp_v6_syn_recv_sock), and
 * setsockopt(2) does not take them.
 */
export function chosenInterfaces(
  isStream: boolean,
  inet: Pick<InetSock, 'uc_index' | 'mc_index'>,
  six: Pick<Ipv6Pinfo, 'ucast_oif' | 'mcast_oif'> | undefined,
): number[] {
  const unicast = [inet.uc_index, six?.ucast_oif ?? 0];
  const multicast = isStream ? [] : [inet.mc_index, six?.mcast_oif ?? 0];
  return [...unicast, ...multicast].filter((index) => index !== 0);
}

function checkOptions(isStream: boolean, inet: InetSock, six: Ipv6Pinfo | undefined): void {
  if (inet.inet_opt !== 0n || (six !== undefined && six.opt !== 0n))
    throw new FileRefusal('has a socket with IP options of its own (IP_OPTIONS)');
  const hasChosen = chosenInterfaces(isStream, inet, six).length > 0;
  if (hasChosen || six?.stickyPktinfo.some((byte) => byte !== 0))
    throw new FileRefusal('has a socket that sends through a network interface of its choice');
  const labels = six?.ipv6_fl_list ?? inet.ipv6_fl_list ?? 0n;
  if (labels !== 0n || (six !== undefined && six.ipv6_ac_list !== 0n))
    throw new FileRefusal('has a socket with IPv6 anycast addresses or flow labels');
}

function ipv4Options(kernel: Kernel, sock: Sock, inet: InetSock): LateOption[] {
  const bit = (flag: InetFlag) => (inetFlag(kernel, inet, flag) ? 1 : 0);
  const isStream = sock.sk_type === SOCK_STREAM;
  const tos = changedOptions([['IP_TOS', inet.tos, 0]]);
  return [
    ...tos,
    // IP_TOS sets the priority as well.
    ...(tos.length === 0 ? [] : [{ name: 'SO_PRIORITY', value: sock.sk_priority } as const]),
    ...changedOptions([
      ['IP_TTL', inet.uc_ttl, -1],
      ['IP_PKTINFO', bit('pktinfo'), 0],
      ['IP_RECVTTL', bit('ttl'), 0],
      ['IP_RECVTOS', bit('tos'), 0],
      ['IP_RECVOPTS', bit('recvopts'), 0],
      ['IP_RETOPTS', bit('retopts'), 0],
      ['IP_PASSSEC', bit('passsec'), 0],
      ['IP_RECVORIGDSTADDR', bit('origdstaddr'), 0],
      ['IP_CHECKSUM', bit('checksum'), 0],
      ['IP_RECVFRAGSIZE', bit('recvfragsize'), 0],
      ['IP_RECVERR', bit('recverr'), 0],
      ['IP_RECVERR_RFC4884', bit('recverrRfc4884'), 0],
      ['IP_BIND_ADDRESS_NO_PORT', bit('bindAddressNoPort'), 0],
      ['IP_MTU_DISCOVER', inet.pmtudisc, PMTUDISC_WANT],
      ['IP_MINTTL', inet.min_ttl, 0],
      ['IP_MULTICAST_TTL', isStream ? undefined : inet.mc_ttl, 1],
      ['IP_MULTICAST_LOOP', bit('mcLoop'), 1],
      ['IP_MULTICAST_ALL', bit('mcAll'), 1],
      ['IP_LOCAL_PORT_RANGE', inet.local_port_range?.readUInt32LE(0), 0],
    ]),
  ];
}

function ipv6Options(kernel: Kernel, sock: Sock, inet: InetSock, six: Ipv6Pinfo): LateOption[] {
  const bit = (flag: Parameters<typeof ipv6Flag>[3]) => ipv6Flag(kernel, inet, six, flag);
  const isStream = sock.sk_type === SOCK_STREAM;
  return changedOptions([
    ['IPV6_RECVRTHDR', rxoptFlag(six, 'srcrt'), 0],
    ['IPV6_2292RTHDR', rxoptFlag(six, 'osrcrt'), 0],
    ['IPV6_RECVPKTINFO', rxoptFlag(six, 'rxinfo'), 0],
    ['IPV6_2292PKTINFO', rxoptFlag(six, 'rxoinfo'), 0],
    ['IPV6_RECVHOPLIMIT', rxoptFlag(six, 'rxhlim'), 0],
    ['IPV6_2292HOPLIMIT', rxoptFlag(six, 'rxohlim'), 0],
    ['IPV6_RECVHOPOPTS', rxoptFlag(six, 'hopopts'), 0],
    ['IPV6_2292HOPOPTS', rxoptFlag(six, 'ohopopts'), 0],
    ['IPV6_RECVDSTOPTS', rxoptFlag(six, 'dstopts'), 0],
    ['IPV6_2292DSTOPTS', rxoptFlag(six, 'odstopts'), 0],
    ['IPV6_FLOWINFO', rxoptFlag(six, 'rxflow'), 0],
    ['IPV6_RECVTCLASS', rxoptFlag(six, 'rxtclass'), 0],
    ['IPV6_RECVPATHMTU', rxoptFlag(six, 'rxpmtu'), 0],
    ['IPV6_RECVORIGDSTADDR', rxoptFlag(six, 'rxorigdstaddr'), 0],
    ['IPV6_RECVFRAGSIZE', rxoptFlag(six, 'recvfragsize'), 0],
    ['IPV6_UNICAST_HOPS', six.hop_limit, -1],
    ['IPV6_MULTICAST_HOPS', isStream ? undefined : six.mcast_hops, 1],
    ['IPV6_MULTICAST_LOOP', bit('mc_loop'), 1],
    ['IPV6_MULTICAST_ALL', bit('mc_all'), 1],
    ['IPV6_MTU_DISCOVER', six.pmtudisc, PMTUDISC_WANT],
    ['IPV6_MTU', six.frag_size, 0],
    ['IPV6_RECVERR', bit('recverr'), 0],
    ['IPV6_RECVERR_RFC4884', bit('recverr_rfc4884'), 0],
    ['IPV6_FLOWINFO_SEND', bit('sndflow'), 0],
    ['IPV6_DONTFRAG', bit('dontfrag'), 0],
    ['IPV6_TCLASS', six.tclass, 0],
    ['IPV6_AUTOFLOWLABEL', bit('autoflowlabel_set') === 1 ? bit('autoflowlabel') : undefined, -1],
    ['IPV6_ADDR_PREFERENCES', six.srcprefs, 0],
    ['IPV6_MINHOPCOUNT', six.min_hopcount, 0],
  ]);
}

/**
 * Options of SOL_IP and SOL_IPV6 that CRIU, or CRIU 3.17, has no field for; an IPv6 socket has those of IPv4
 * as well. Throws a FileRefusal for those that cannot be set again.
 */
export function ipOptions(kernel: Kernel, sock: Sock, inet: InetSock): LateOption[] {
  const six = ipv6PinfoOf(kernel, inet);
  checkOptions(sock.sk_type === SOCK_STREAM, inet, six);
  const four = ipv4Options(kernel, sock, inet);
  return six === undefined ? four : [...four, ...ipv6Options(kernel, sock, inet, six)];
}
