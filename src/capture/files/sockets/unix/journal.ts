import { dentryChildren, dentryName, dentryStruct } from '../../../../linux/dcache.ts';
import { inodeStruct } from '../../../../linux/fs.ts';
import { type Sock, socketInode, sockFlag, sockStruct } from '../../../../linux/sock.ts';
import { showUnixName, type UnixSock, unixName, unixSock } from '../../../../linux/unix.ts';
import type { JournalSocket, JournalStream } from '../../../../model/socket.ts';
import { SOCK_DGRAM, SOCK_STREAM } from '../../../../system/abi.ts';
import { readable } from '../../../../vmcore/errors.ts';
import type { Kernel } from '../../../../vmcore/kernel.ts';
import { contentOf } from '../../../../vmcore/stored-pages.ts';
import { pageCache } from '../../content/page-cache.ts';
import type { CaptureContext } from '../../context.ts';

/**
 * Where the journal takes what services write to standard output, and what programs say by syslog(3) or
 * sd_journal_send(3).
 */
const JOURNAL_STREAM = '/run/systemd/journal/stdout';
const JOURNAL_DATAGRAMS: ReadonlySet<string> = new Set([
  '/run/systemd/journal/dev-log',
  '/run/systemd/journal/socket',
  '/dev/log',
]);
/** Beside that socket: a file for each stream, named `DEVICE:INODE` of the journal's end. */
const STREAMS = 'streams';
/**
 * More entries in a directory of the journal are taken for damage (STDOUT_STREAMS_MAX of journald-stream.c:
 * 4096, later 65536).
 */
const MAX_ENTRIES = 1 << 17;
const MAX_STATE_BYTES = 4096;
/** The three bits of a priority that are its level; the others are the facility. */
const LEVEL_MASK = 7;
/** LOG_KERN, which the journal leaves out, and LOG_DAEMON, which systemd gives to every service. */
const usualFacilities: ReadonlySet<number> = new Set([0, 3]);

/** The escapes of C besides `\ooo`. */
const escapes: Readonly<Record<string, string>> = {
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** @param text latin1 */
function unescapeC(text: string): string {
  const bytes = text.replace(/\\([0-7]{3}|.)/g, (_, code: string) =>
    code.length === 3 ? String.fromCharCode(Number.parseInt(code, 8) & 0xff) : (escapes[code] ?? code),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/** How the journal treats a stream, and notes on what of it no other stream can be told. */
export interface StreamState {
  readonly stream: JournalStream;
  readonly lost: readonly string[];
}

/**
 * Reads the file in which the journal keeps how it treats a stream (stdout_stream_save of systemd's
 * journald-stream.c, 252 and 257).
 * @param text latin1
 * @returns undefined if it is not such a file
 */
export function parseStreamState(text: string): StreamState | undefined {
  const fields = new Map<string, string>();
  for (const line of text.split('\n')) {
    const [, name, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? [];
    if (name !== undefined && value !== undefined) fields.set(name, value);
  }
  const priority = fields.get('PRIORITY');
  const levelPrefix = fields.get('LEVEL_PREFIX');
  if (priority === undefined || !/^\d{1,3}$/.test(priority)) return undefined;
  if (levelPrefix !== '0' && levelPrefix !== '1') return undefined;
  const facility = Number(priority) >> 3;
  const lost = [
    !usualFacilities.has(facility) && `its output has lost its facility ${facility} (SyslogFacility=)`,
    fields.get('FORWARD_TO_SYSLOG') === '1' && 'its output is no longer forwarded to syslog',
    fields.get('FORWARD_TO_KMSG') === '1' && "its output is no longer forwarded to the kernel's log",
    fields.get('FORWARD_TO_CONSOLE') === '1' && 'its output is no longer forwarded to the console',
  ];
  const identifier = unescapeC(fields.get('IDENTIFIER') ?? '');
  // The journal takes it as a line: these can only be damage.
  if (/[\0\n]/.test(identifier)) return undefined;
  return {
    stream: {
      identifier,
      level: Number(priority) & LEVEL_MASK,
      levelPrefix: levelPrefix === '1',
    },
    lost: lost.filter((note) => note !== false),
  };
}

function childNamed(
  kernel: Kernel,
  directory: bigint,
  matches: (name: string) => boolean,
): bigint | undefined {
  for (const child of dentryChildren(kernel, directory, MAX_ENTRIES)) {
    if (matches(dentryName(kernel, child))) return child.address;
  }
  return undefined;
}

/** Content of a file on tmpfs, of which one page is enough. */
function smallFile(kernel: Kernel, dentry: bigint): string | undefined {
  const { i_mapping, i_size } = kernel.bind(inodeStruct).at(kernel.bind(dentryStruct).at(dentry).d_inode);
  const [first] = pageCache(kernel, i_mapping, true).runs;
  if (first?.address !== 0 || i_size <= 0 || i_size > MAX_STATE_BYTES) return undefined;
  return contentOf(kernel).withView(first.physical, i_size, (bytes) => Buffer.from(bytes).toString('latin1'));
}

/** @param peer the journal's end of a stream, which has the path of the socket that it was accepted from */
function streamState(kernel: Kernel, peer: Sock): StreamState | undefined {
  const { dentry } = kernel.bind(unixSock).at(peer.address);
  const directory = kernel.bind(dentryStruct).at(dentry).d_parent;
  const streams = childNamed(kernel, directory, (name) => name === STREAMS);
  const inode = socketInode(kernel, peer.sk_socket);
  if (streams === undefined) return undefined;
  const file = childNamed(kernel, streams, (name) => name.endsWith(`:${inode}`));
  const text = file === undefined ? undefined : smallFile(kernel, file);
  return text === undefined ? undefined : parseStreamState(text);
}

/**
 * Tells a socket to the system's log, whose daemon is never among the protected processes. Text that it had
 * not read is lost, which is noted.
 * @param unreadBytes what waits in the receive queue of a socket
 */
export function journalSocket(
  context: CaptureContext,
  unix: UnixSock,
  sock: Sock,
  unreadBytes: (peer: Sock) => number,
): JournalSocket | undefined {
  const { kernel, system } = context;
  if (unix.peer === 0n) return undefined;
  const peer = kernel.bind(sockStruct).at(unix.peer);
  const name = showUnixName(unixName(kernel, kernel.bind(unixSock).at(unix.peer)));
  if (sockFlag(kernel, peer, 'dead')) return undefined;
  if (system.holdersOfObject(unix.peer).some(({ isProtected }) => isProtected)) return undefined;
  if (sock.sk_type === SOCK_DGRAM && JOURNAL_DATAGRAMS.has(name)) return { kind: 'datagram' };
  if (sock.sk_type !== SOCK_STREAM || name !== JOURNAL_STREAM) return undefined;
  const holders = system.holdersOfObject(sock.address);
  const unread = unreadBytes(peer);
  if (unread > 0)
    context.noteHolders(holders, `${unread} bytes of output that the journal had not read are lost`);
  const state = readable(() => streamState(kernel, peer));
  // A thread may give itself any name; the journal takes a line.
  const command = (holders[0]?.comm ?? 'unknown').replace(/[\0\n]/g, '?');
  if (state === undefined) {
    context.noteHolders(
      holders,
      `how the journal treated its output cannot be found: it is level 6 (info) of ${command} now`,
    );
    return { kind: 'stream', identifier: command, level: 6, levelPrefix: true };
  }
  for (const note of state.lost) context.noteHolders(holders, note);
  // Without one the journal shows the name of whoever writes, which will be the relay.
  return { kind: 'stream', ...state.stream, identifier: state.stream.identifier || command };
}
