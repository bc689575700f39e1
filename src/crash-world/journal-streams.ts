import {
  appendFileSync,
  closeSync,
  fstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import koffi from 'koffi';
import { RELAY_NAME, STREAMS_GIVEN } from '../criu/restore/names.ts';
import type { JournalStream } from '../model/socket.ts';
import { say } from './stage-runner.ts';

/** Where the journal keeps how it treats each stream, in files named `DEVICE:INODE` of its end (journald-stream.c, 252 and 257). */
const STREAMS = '/run/systemd/journal/streams';

const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

const libc = koffi.load('libc.so.6');
const syscall = libc.func('long syscall(long number, long a, long b, long c)');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const connect = libc.func('int connect(int fd, const uint8_t *address, uint32_t length)');
koffi.struct('otherworld_iovec', { base: 'const uint8_t *', length: 'size_t' });
koffi.struct('otherworld_msghdr', {
  name: 'const uint8_t *',
  nameLength: 'uint32_t',
  iov: 'otherworld_iovec *',
  iovLength: 'size_t',
  control: 'const uint8_t *',
  controlLength: 'size_t',
  flags: 'int',
});
const sendmsg = libc.func('long sendmsg(int fd, const otherworld_msghdr *message, int flags)');

function checked(what: string, result: unknown): number {
  if (typeof result !== 'number' || result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

/** A relay that waits with one end of a stream, of which a restored process has the other. */
interface Relay {
  readonly pid: number;
  readonly stream: JournalStream;
}

/** The settings in a relay's command line; undefined for another process. */
export function relayOf(commandLine: string): JournalStream | undefined {
  const [, , , name, identifier, level, levelPrefix] = commandLine.split('\0');
  if (name !== RELAY_NAME || identifier === undefined || !/^[0-7]$/.test(level ?? '')) return undefined;
  return { identifier, level: Number(level), levelPrefix: levelPrefix === 'true' };
}

function relays(): Relay[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      // Whoever is not root says nothing about streams.
      if (statSync(join('/proc', name)).uid !== 0) return [];
      const stream = relayOf(readFileSync(join('/proc', name, 'cmdline'), 'utf8'));
      return stream === undefined ? [] : [{ pid: Number(name), stream }];
    } catch (error) {
      if (error instanceof Error && 'code' in error && ['ENOENT', 'ESRCH'].includes(`${error.code}`))
        return [];
      throw error;
    }
  });
}

/** The file from which the journal takes up a stream when it starts, in the form of parse_env_file (systemd's env-file.c). */
export function streamState({ identifier, level, levelPrefix }: JournalStream): string {
  const quoted = `"${identifier.replaceAll(/["\\$`]/g, '\\$&')}"`;
  return [
    `PRIORITY=${level}`,
    `LEVEL_PREFIX=${levelPrefix ? 1 : 0}`,
    'FORWARD_TO_SYSLOG=0',
    'FORWARD_TO_KMSG=0',
    'FORWARD_TO_CONSOLE=0',
    ...(identifier === '' ? [] : [`IDENTIFIER=${quoted}`]),
    '',
  ].join('\n');
}

/** Hands a descriptor to the service manager, for the service that this program is started for (FDSTORE=1 of sd_notify(3)). */
export function storeDescriptor(notifySocket: string, fd: number): void {
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(notifySocket.replace(/^@/, '\0'), 2, 'latin1');
  const control = Buffer.alloc(24);
  control.writeBigUInt64LE(20n, 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, 16);
  const text = Buffer.from('FDSTORE=1');
  const to = checked('no socket', socket(AF_UNIX, SOCK_DGRAM, 0));
  try {
    checked(notifySocket, connect(to, address, 2 + notifySocket.length));
    const iov = { base: text, length: text.length };
    const message = {
      name: null,
      nameLength: 0,
      iov,
      iovLength: 1,
      control,
      controlLength: control.length,
      flags: 0,
    };
    checked(`to ${notifySocket}`, sendmsg(to, message, 0));
  } finally {
    closeSync(to);
  }
}

/** Descriptor 0 of another process. */
export function standardInputOf(pid: number): number {
  const pidfd = checked(`process ${pid}`, syscall(SYS_PIDFD_OPEN, pid, 0, 0));
  try {
    return checked(`descriptor 0 of process ${pid}`, syscall(SYS_PIDFD_GETFD, pidfd, 0, 0));
  } finally {
    closeSync(pidfd);
  }
}

/**
 * Gives the streams that restored processes write to to the new system's journal, as it gets its own ones back when it is restarted: the descriptors
 * from the service manager, how to treat each from a file. To be run as a command before the start of the journal, in its unit.
 */
export function giveStreams(): void {
  const notifySocket = process.env.NOTIFY_SOCKET ?? '';
  mkdirSync(STREAMS, { recursive: true, mode: 0o755 });
  for (const { pid, stream } of relays()) {
    try {
      const fd = standardInputOf(pid);
      const { dev, ino } = fstatSync(fd);
      writeFileSync(join(STREAMS, `${dev}:${ino}`), streamState(stream), { mode: 0o644 });
      storeDescriptor(notifySocket, fd);
      appendFileSync(STREAMS_GIVEN, `socket:[${ino}]\n`);
    } catch (error) {
      // Its relay copies then.
      say(`the stream of ${stream.identifier}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}
