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
import { RELAY_NAME, STREAMS_GIVEN } from '../../criu/restore/names.ts';
import type { JournalStream } from '../../model/socket.ts';
import { SOCK_DGRAM, SOCK_STREAM } from '../../system/abi.ts';
import { takeDescriptor, waitUntilReadable } from '../../system/descriptors.ts';
import { checked } from '../../system/libc.ts';
import { ifThere, processNumbers } from '../../system/proc.ts';
import { AF_UNIX, connect, SOCK_CLOEXEC, sendDescriptor, socket, socketpair } from '../../system/sockets.ts';
import { messageOf } from '../../system/thrown.ts';
import { say } from '../stages/stage-runner.ts';

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
 * The service manager, as a program of a service talks to it (sd_notify(3)). It tells by the sender's process
 * for which service a message is, and can do so only as long as there is one: who has sent something waits
 * for it before it ends.
 */
export interface ServiceManager {
  /** Hands it a descriptor to keep for the service (FDSTORE=1). */
  store(fd: number): void;
  /** Waits until it has read what was sent (BARRIER=1). @throws Error if it has not in time */
  settle(timeoutMilliseconds: number): void;
  close(): void;
}

/** @param notifySocket NOTIFY_SOCKET of the environment */
export function serviceManager(notifySocket: string): ServiceManager {
  const address = Buffer.alloc(110);
  address.writeUInt16LE(AF_UNIX, 0);
  address.write(notifySocket.replace(/^@/, '\0'), 2, 'latin1');
  const to = checked('socket', socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  try {
    checked('connect', connect(to, address, 2 + notifySocket.length));
  } catch (error) {
    closeSync(to);
    throw error;
  }
  return {
    store: (fd) => sendDescriptor(to, 'FDSTORE=1', fd),
    settle: (timeoutMilliseconds) => {
      // The manager closes its copy of the one end: the other one is hung up then.
      const [ours, managers] = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC);
      try {
        try {
          sendDescriptor(to, 'BARRIER=1', managers);
        } finally {
          closeSync(managers);
        }
        if (!waitUntilReadable(ours, timeoutMilliseconds))
          throw new Error('the service manager does not read what it is told');
      } finally {
        closeSync(ours);
      }
    },
    close: () => closeSync(to),
  };
}

/** How long the service manager may take to read what it is told. */
const MANAGER_MILLISECONDS = 60_000;

/**
 * Gives the streams that restored processes write to to the new system's journal, as it gets its own ones
 * back when it is restarted: the descriptors from the service manager, how to treat each from a file. To be
 * run as a command before the start of the journal, in its unit.
 */
export function giveStreams(): void {
  const manager = serviceManager(process.env.NOTIFY_SOCKET ?? '');
  mkdirSync(STREAMS, { recursive: true, mode: 0o755 });
  const given: string[] = [];
  for (const { pid, stream } of relays()) {
    try {
      const fd = checked('pidfd_getfd', takeDescriptor(pid, 0));
      const { dev, ino } = fstatSync(fd);
      writeFileSync(join(STREAMS, `${dev}:${ino}`), streamState(stream), { mode: 0o644 });
      manager.store(fd);
      given.push(`socket:[${ino}]\n`);
    } catch (error) {
      // Its relay copies then.
      say(`the stream of ${stream.identifier}: ${messageOf(error)}`);
    }
  }
  // A relay that reads this lets go of its stream: somebody else has to have it by then.
  manager.settle(MANAGER_MILLISECONDS);
  appendFileSync(STREAMS_GIVEN, given.join(''));
  manager.close();
}
