import type { MessageInitShape } from '@bufbuild/protobuf';
import type { GroupFiles } from '../../../model/file.ts';
import type { InetSocket, TcpConnection } from '../../../model/socket.ts';
import type { ImageDirectory, PageSource } from '../image.ts';
import { TcpStreamEntrySchema } from '../proto/gen/tcp-stream_pb.ts';

/** TCPI_OPT_* (include/uapi/linux/tcp.h). */
const OPTIONS = { timestamps: 1, selectiveAcks: 2, scale: 4 } as const;

/** As if they were in use: see `streamEntry`. */
const NO_SCALE = { send: 0, receive: 0 } as const;

function optionMask({ timestamp, hasSelectiveAcks }: TcpConnection): number {
  const stamps = timestamp === undefined ? 0 : OPTIONS.timestamps;
  return stamps | (hasSelectiveAcks ? OPTIONS.selectiveAcks : 0) | OPTIONS.scale;
}

/**
 * Scales of 0 stand for none: if none are set, a socket keeps the one that it had in mind for a connection of
 * its own (tcp_connect_init, net/ipv4/tcp_output.c), and shows its peer a window of a few bytes.
 */
function streamEntry(connection: TcpConnection): MessageInitShape<typeof TcpStreamEntrySchema> {
  const { unread, unacknowledged, scale = NO_SCALE, timestamp, window } = connection;
  return {
    inqLen: unread.bytes,
    inqSeq: connection.receivedTo,
    outqLen: unacknowledged.bytes,
    outqSeq: connection.writtenTo,
    unsqLen: connection.unsentBytes,
    optMask: optionMask(connection),
    sndWscale: scale.send,
    rcvWscale: scale.receive,
    mssClamp: connection.mssClamp,
    ...(timestamp === undefined ? {} : { timestamp }),
    sndWl1: window.sendUpdate,
    sndWnd: window.send,
    maxWindow: window.largest,
    rcvWnd: window.receive,
    rcvWup: window.receiveUpdate,
  };
}

/** `tcp-stream-INODE.img`: a connection, and what is in its queues. */
export function writeTcpStream(
  images: ImageDirectory,
  source: PageSource,
  { connection, inode }: InetSocket,
): void {
  if (connection === undefined) return;
  const image = images.image('tcp-stream', inode);
  image.entry(TcpStreamEntrySchema, streamEntry(connection));
  image.runs(source, connection.unread.data);
  image.runs(source, connection.unacknowledged.data);
}

/** Options of `criu restore` without which it does not take the connections of a group. */
export function connectionOptions({ files }: Pick<GroupFiles, 'files'>): string[] {
  const hasAny = files.some((file) => file.type === 'inet' && file.connection !== undefined);
  return hasAny ? ['--tcp-established'] : [];
}
