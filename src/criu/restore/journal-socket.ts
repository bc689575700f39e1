import { spawn } from 'node:child_process';
import { closeSync, constants } from 'node:fs';
import type { JournalStream } from '../../model/socket.ts';
import { SOCK_DGRAM, SOCK_STREAM } from '../../system/abi.ts';
import { F_SETFL, fcntl } from '../../system/descriptors.ts';
import { checked } from '../../system/libc.ts';
import { AF_UNIX, SOCK_CLOEXEC, SOL_SOCKET, setsockopt, socketpair } from '../../system/sockets.ts';
import { messageOf } from '../../system/thrown.ts';
import type { PlannedJournalSocket } from '../images/plan/restore-plan.ts';
import { RELAY_NAME, STREAMS_TAKEN } from './names.ts';
import type { GroupResource } from './resource.ts';

const socketTypes = { stream: SOCK_STREAM, datagram: SOCK_DGRAM } as const;
const { O_NONBLOCK } = constants;
const SO_PASSCRED = 16;
const ENABLED = Buffer.from([1, 0, 0, 0]);

/**
 * Keeps the other end of a stream until the new system's journal has it, and ends. If a journal is there
 * already, or the new one does not take it up, the relay copies what the process writes. Without a journal
 * for ten minutes the text is thrown away, so that the process does not block.
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

function closeBoth(pair: readonly [number, number]): void {
  for (const fd of pair) closeSync(fd);
}

/** All pairs, or none: throws a SystemCallError. */
function makePairs(sockets: readonly PlannedJournalSocket[]): [number, number][] {
  const pairs: [number, number][] = [];
  try {
    for (const socket of sockets) pairs.push(makePair(socket));
    return pairs;
  } catch (error) {
    for (const pair of pairs) closeBoth(pair);
    throw error;
  }
}

function makePair({ kind, nonblocking }: PlannedJournalSocket): [number, number] {
  const pair = socketpair(AF_UNIX, socketTypes[kind] | SOCK_CLOEXEC);
  try {
    if (nonblocking) checked('fcntl', fcntl(pair[0], F_SETFL, O_NONBLOCK));
    // The journal tells by its sender whose a text is, also one that was written before the journal was
    // there.
    checked('setsockopt', setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, ENABLED, ENABLED.length));
    return pair;
  } catch (error) {
    closeBoth(pair);
    throw error;
  }
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
    return [`${lost} (${messageOf(error)})`];
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
  let pairs = makePairs(sockets);
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
