import type { File } from '../../../linux/fs.ts';
import { bitOf } from '../../../linux/inet.ts';
import type { Socket } from '../../../linux/net.ts';
import { NETLINK_F, type NetlinkSock, netlinkGroups, netlinkSock } from '../../../linux/netlink.ts';
import { skbQueue } from '../../../linux/skbuff.ts';
import { type Sock, tcpState } from '../../../linux/sock.ts';
import type { NetlinkSocket } from '../../../model/socket.ts';
import type { LateOption, LateOptionName } from '../../../model/socket-option.ts';
import type { CaptureContext } from '../context.ts';
import { FileRefusal } from '../refusal.ts';
import { lateSocketOptions, shutdownOf, socketIdentity, socketOptions } from './socket-options.ts';

/** CRIU keeps 32 multicast groups of a netlink socket; the others are joined once it has made the socket. */
const CRIU_GROUP_WORDS = 1;

const optionBits: readonly (readonly [bit: number, name: LateOptionName])[] = [
  [NETLINK_F.pktinfo, 'NETLINK_PKTINFO'],
  [NETLINK_F.broadcastError, 'NETLINK_BROADCAST_ERROR'],
  [NETLINK_F.noEnobufs, 'NETLINK_NO_ENOBUFS'],
  [NETLINK_F.listenAllNsid, 'NETLINK_LISTEN_ALL_NSID'],
  [NETLINK_F.capAck, 'NETLINK_CAP_ACK'],
  [NETLINK_F.extAck, 'NETLINK_EXT_ACK'],
  [NETLINK_F.strictCheck, 'NETLINK_GET_STRICT_CHK'],
];
const KNOWN_FLAGS = 0xfe;

function netlinkOptions({ flags, portid }: NetlinkSock, groups: readonly number[]): LateOption[] {
  const options = optionBits.flatMap(([bit, name]) => (flags.has(bit) ? [{ name, value: 1 }] : []));
  // Without an address CRIU does not bind the socket, which is how it joins groups.
  const first = portid === 0 ? 0 : CRIU_GROUP_WORDS * 32;
  const memberships = groups.flatMap((word, i) =>
    Array.from({ length: 32 }, (_, bit) => i * 32 + bit).filter(
      (group) => group >= first && bitOf(word, group % 32) === 1,
    ),
  );
  return [
    ...options,
    ...memberships.map((group): LateOption => ({ name: 'NETLINK_ADD_MEMBERSHIP', value: group + 1 })),
  ];
}

/**
 * A netlink socket that has nothing to read. Throws a FileRefusal if messages wait in it or a dump is running
 * on it.
 */
export function captureNetlink(
  context: CaptureContext,
  file: File,
  socket: Socket,
  sock: Sock,
): NetlinkSocket {
  const { kernel } = context;
  const netlink = kernel.bind(netlinkSock).at(sock.address);
  const waiting = skbQueue(kernel, sock.receiveQueue).length;
  if (waiting > 0 || netlink.cb_running) {
    throw new FileRefusal(`has a netlink socket (protocol ${sock.sk_protocol}) with unread messages`);
  }
  const { low, high } = netlink.flags;
  if ((low & ~KNOWN_FLAGS) !== 0 || high !== 0) {
    throw new FileRefusal(`has a netlink socket (protocol ${sock.sk_protocol}) with options of its own`);
  }
  const groups = netlinkGroups(kernel, netlink);
  return {
    type: 'netlink',
    ...context.common(file),
    ...socketIdentity(kernel, file),
    socketType: sock.sk_type,
    state: sock.state === tcpState.established ? 1 : 7,
    options: socketOptions(kernel, socket, sock),
    lateOptions: [...lateSocketOptions(kernel, socket, sock), ...netlinkOptions(netlink, groups)],
    shutdown: shutdownOf(sock),
    protocol: sock.sk_protocol,
    portId: netlink.portid,
    destinationPortId: netlink.dst_portid,
    destinationGroup: netlink.dst_group,
    groups: netlink.portid === 0 ? [] : groups.slice(0, CRIU_GROUP_WORDS),
  };
}
