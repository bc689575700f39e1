import type { File } from '../../linux/fs.ts';
import { socketStruct } from '../../linux/net.ts';
import { family, sockStruct } from '../../linux/sock.ts';
import type { InetSocket, NetlinkSocket, UnixSocket } from '../../model/socket.ts';
import type { CaptureContext } from './context.ts';
import { captureInet } from './inet.ts';
import { captureNetlink } from './netlink.ts';
import { FileRefusal } from './refusal.ts';
import { captureUnix } from './unix.ts';

/** Families that are refused by a name that people know. */
const otherFamilies: Readonly<Record<number, string>> = {
  17: 'packet',
  29: 'CAN',
  31: 'Bluetooth',
  38: 'kernel crypto',
  40: 'vsock',
  44: 'XDP',
};

/** An open socket of any family. Throws a FileRefusal for the families that are not carried. */
export function captureSocket(context: CaptureContext, file: File): UnixSocket | InetSocket | NetlinkSocket {
  const { kernel } = context;
  const socket = kernel.bind(socketStruct).at(file.private_data);
  if (socket.file !== file.address)
    throw new FileRefusal('has a socket that does not point back to its file');
  const sock = kernel.bind(sockStruct).at(socket.sk);
  if (sock.sk_socket !== socket.address) throw new FileRefusal('has a socket whose two halves do not match');
  if (sock.sk_err !== 0) {
    const holders = context.system.holdersOfObject(sock.address);
    context.noteHolders(holders, `the error ${sock.sk_err} that waited on a socket (SO_ERROR) is lost`);
  }
  switch (sock.family) {
    case family.unix:
      return captureUnix(context, file, socket, sock);
    case family.inet:
    case family.inet6:
      return captureInet(context, file, socket, sock);
    case family.netlink:
      return captureNetlink(context, file, socket, sock);
    default: {
      const name = otherFamilies[sock.family] ?? `family ${sock.family}`;
      throw new FileRefusal(`has a ${name} socket`);
    }
  }
}
