import type { File } from '../../../linux/fs.ts';
import { type Socket, socketStruct } from '../../../linux/net.ts';
import { family, type Sock, sockStruct } from '../../../linux/sock.ts';
import type { InetSocket, NetlinkSocket, UnixSocket } from '../../../model/socket.ts';
import type { CaptureContext } from '../context.ts';
import { FileRefusal } from '../refusal.ts';
import { captureInet } from './inet/inet.ts';
import { captureNetlink } from './netlink.ts';
import { captureUnix } from './unix/unix.ts';

type CaptureSocket = (
  context: CaptureContext,
  file: File,
  socket: Socket,
  sock: Sock,
) => UnixSocket | InetSocket | NetlinkSocket;

/** All families that are carried. */
const families = new Map<number, CaptureSocket>([
  [family.unix, captureUnix],
  [family.inet, captureInet],
  [family.inet6, captureInet],
  [family.netlink, captureNetlink],
]);

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
    throw FileRefusal.damaged('has a socket that does not point back to its file');
  const sock = kernel.bind(sockStruct).at(socket.sk);
  if (sock.sk_socket !== socket.address)
    throw FileRefusal.damaged('has a socket whose two halves do not match');
  const capture = families.get(sock.family);
  if (capture === undefined)
    throw new FileRefusal(`has a ${otherFamilies[sock.family] ?? `family ${sock.family}`} socket`);
  const captured = capture(context, file, socket, sock);
  // A connection that is lost has an error of its own.
  const isBroken = captured.type === 'inet' && captured.broken !== undefined;
  if (sock.sk_err !== 0 && !isBroken) {
    const holders = context.system.holdersOfObject(sock.address);
    context.noteHolders(holders, `the error ${sock.sk_err} that waited on a socket (SO_ERROR) is lost`);
  }
  return captured;
}
