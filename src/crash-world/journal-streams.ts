import {
  appendFileSync,
  closeSync,
  fstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { RELAY_NAME, STREAMS_GIVEN } from '../criu/restore/names.ts';
import type { JournalStream } from '../model/socket.ts';
import { SOCK_DGRAM } from '../system/abi.ts';
import { takeDescriptor } from '../system/descriptors.ts';
import { checked } from '../system/libc.ts';
import { ifThere, processNumbers } from '../system/proc.ts';
import { AF_UNIX, connect, sendDescriptor, socket } from '../system/sockets.ts';
import { messageOf } from '../system/thrown.ts';
import { say } from './stage-runner.ts';

/**
 * Where the journal keeps how it treats each stream, in files named `DEVICE:INODE` of its end
 * (journald-stream.c, 252 and 257).
 */
const STREAMS = '/run/systemd/journal/streams';

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
  return processNumbers().flatMap((pid) => {
    const stream = ifThere(() => {
      // Whoever is not root says nothing about streams.
      if (statSync(`/proc/${pid}`).uid !== 0) return undefined;
      return relayOf(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
    });
    return stream === undefined ? [] : [{ pid, stream }];
  });
}

/**
 * The file from which the journal takes up a stream when it starts, in the form of parse_env_file (systemd's
 * env-file.c).
 */
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

/**
 * Hands a descriptor to the service manager, for the service that this program is started for (FDSTORE=1 of
 * sd_notify(3)).
 */
export function storeDescriptor(notifySocket: string, fd: number): void {
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(notifySocket.replace(/^@/, '\0'), 2, 'latin1');
  const to = checked('socket', socket(AF_UNIX, SOCK_DGRAM, 0));
  try {
    checked('connect', connect(to, address, 2 + notifySocket.length));
    sendDescriptor(to, 'FDSTORE=1', fd);
  } finally {
    closeSync(to);
  }
}

/**
 * Gives the streams that restored processes write to to the new system's journal, as it gets its own ones
 * back when it is restarted: the descriptors from the service manager, how to treat each from a file. To be
 * run as a command before the start of the journal, in its unit.
 */
export function giveStreams(): void {
  const notifySocket = process.env.NOTIFY_SOCKET ?? '';
  mkdirSync(STREAMS, { recursive: true, mode: 0o755 });
  for (const { pid, stream } of relays()) {
    try {
      const fd = checked('pidfd_getfd', takeDescriptor(pid, 0));
      const { dev, ino } = fstatSync(fd);
      writeFileSync(join(STREAMS, `${dev}:${ino}`), streamState(stream), { mode: 0o644 });
      storeDescriptor(notifySocket, fd);
      appendFileSync(STREAMS_GIVEN, `socket:[${ino}]\n`);
    } catch (error) {
      // Its relay copies then.
      say(`the stream of ${stream.identifier}: ${messageOf(error)}`);
    }
  }
}
