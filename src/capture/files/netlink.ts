import type { File } from '../../linux/file.ts';
import { inodeStruct } from '../../linux/fs.ts';
import { netlinkGroups, netlinkSock } from '../../linux/netlink.ts';
import { skbQueue } from '../../linux/skbuff.ts';
import { type Sock, type Socket, tcpState } from '../../linux/sock.ts';
import type { NetlinkSocket } from '../../model/socket.ts';
import type { CaptureContext } from './context.ts';
import { FileRefusal } from './refusal.ts';
import { shutdownOf, socketOptions } from './socket-options.ts';

/** CRIU keeps 32 multicast groups of a netlink socket. */
const MAX_GROUP_WORDS = 1;

/**
 * A netlink socket that has nothing to read. Throws a FileRefusal if messages wait in it, a dump is running on it,
 * listens to groups beyond the 32nd.
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
  if (netlink.flags !== 0) {
    throw new FileRefusal(`has a netlink socket (protocol ${sock.sk_protocol}) with options of its own`);
  }
  const groups = netlinkGroups(kernel, netlink);
  if (groups.length > 0 && netlink.portid === 0) {
    throw new FileRefusal(
      `has a netlink socket (protocol ${sock.sk_protocol}) in groups but without an address`,
    );
  }
  if (groups.length > MAX_GROUP_WORDS) {
    throw new FileRefusal(`has a netlink socket (protocol ${sock.sk_protocol}) in groups beyond the 32nd`);
  }
  return {
    type: 'netlink',
    ...context.common(file),
    inode: kernel.bind(inodeStruct).at(file.f_inode).i_ino,
    socketType: sock.sk_type,
    state: sock.state === tcpState.established ? 1 : 7,
    options: socketOptions(kernel, socket, sock),
    shutdown: shutdownOf(sock),
    protocol: sock.sk_protocol,
    portId: netlink.portid,
    destinationPortId: netlink.dst_portid,
    destinationGroup: netlink.dst_group,
    groups,
  };
}
