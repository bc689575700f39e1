import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import type { JournalStream } from '../../model/socket.ts';
import type { PlannedJournalSocket } from '../images/plan/restore-plan.ts';
import { RELAY_NAME, STREAMS_TAKEN } from './names.ts';
import type { GroupResource } from './resource.ts';

const AF_UNIX = 1;
/** SOCK_STREAM and SOCK_DGRAM. */
const socketTypes = { stream: 1, datagram: 2 } as const;
const SOCK_CLOEXEC = 0o2000000;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_PASSCRED = 16;

const libc = koffi.load('libc.so.6');
const socketpair = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *pair)');
const setsockopt = libc.func(
  'int setsockopt(int fd, int level, int name, const int *value, uint32_t length)',
);
const fcntl = libc.func('int fcntl(int fd, int command, int argument)');

/**
 * Keeps the other end of a stream until the new system's journal has it, and ends. If a journal is there already, or the new one does not take it
 * up, the relay copies what the process writes. Without a journal for ten minutes the text is thrown away, so that the process does not
 * block.
 */
const RELAY = `
copy() { exec systemd-cat --identifier="$1" --priority="$2" --level-prefix="$3" cat; }
i=0
wait_for() {
    until [ "$1" "$2" ]; do
        i=$((i + 1))
        [ $i -gt 1200 ] && exec cat >/dev/null
        sleep 0.5
    done
}
[ -S /run/systemd/journal/stdout ] && copy "$@"
wait_for -e ${STREAMS_TAKEN}
grep -qxF "$(readlink /proc/$$/fd/0)" ${STREAMS_TAKEN} && exit 0
wait_for -S /run/systemd/journal/stdout
copy "$@"`;

function makePair({ inode, kind, nonblocking }: PlannedJournalSocket): [number, number] {
  const pair: [number, number] = [-1, -1];
  const result: unknown = socketpair(AF_UNIX, socketTypes[kind] | SOCK_CLOEXEC, 0, pair);
  if (result !== 0) throw new Error(`no socket for ${inode} of the images: errno ${koffi.errno()}`);
  if (nonblocking) fcntl(pair[0], F_SETFL, O_NONBLOCK);
  // The journal tells by its sender whose a text is, also one that was written before the journal was there.
  setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, [1], 4);
  return pair;
}

/** The arguments of `sh` for a relay. */
export function relayArguments({ identifier, level, levelPrefix }: JournalStream): string[] {
  return ['-c', RELAY, RELAY_NAME, identifier, String(level), String(levelPrefix)];
}

/** @returns why it cannot be started, as a sentence; nothing if it is */
function startRelay(shell: string, fd: number, stream: JournalStream): string[] {
  const lost = `what is written to the journal as ${stream.identifier} is lost, and ends who writes it (SIGPIPE): its relay cannot be started`;
  try {
    const relay = spawn(shell, relayArguments(stream), {
      stdio: [fd, 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    });
    // Without a process there is no number, and this tells why too late.
    relay.on('error', () => undefined);
    relay.unref();
    return relay.pid === undefined ? [lost] : [];
  } catch (error) {
    return [`${lost} (${error instanceof Error ? error.message : error})`];
  }
}

/**
 * Makes a socket for each of those that led to the journal, with one end for the process that is restored.
 * What it writes to a stream waits in the socket until the journal of the new system is there; the other end
 * of a datagram socket is closed.
 * @param firstFd the descriptor that CRIU has the first one under
 * @param shell that runs the relays
 * @returns a resource that starts the relays when the group is restored; a sentence for each stream whose
 * relay cannot be started
 */
export function openJournalSockets(
  sockets: readonly PlannedJournalSocket[],
  { firstFd, shell = '/bin/sh' }: { readonly firstFd: number; readonly shell?: string },
): GroupResource {
  let pairs = sockets.map(makePair);
  return {
    fds: pairs.map(([process]) => process),
    options: sockets.flatMap(({ inode }, i) => ['--inherit-fd', `fd[${firstFd + i}]:socket:[${inode}]`]),
    finish: (isRestored) => {
      const open = pairs;
      pairs = [];
      return open.flatMap(([process, other], i) => {
        closeSync(process);
        const socket = sockets[i];
        const lost = isRestored && socket?.kind === 'stream' ? startRelay(shell, other, socket) : [];
        closeSync(other);
        return lost;
      });
    },
  };
}
