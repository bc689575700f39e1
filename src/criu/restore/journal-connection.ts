import { closeSync } from 'node:fs';
import type { JournalStream } from '../../model/socket.ts';
import { O_NONBLOCK, SOCK_DGRAM, SOCK_STREAM } from '../../system/abi.ts';
import { F_SETFL, fcntl } from '../../system/descriptors.ts';
import { checked } from '../../system/libc.ts';
import {
  AF_UNIX,
  connect,
  SOCK_CLOEXEC,
  SUN_PATH_BYTES,
  send,
  shutdown,
  socket,
  socketpair,
} from '../../system/sockets.ts';
import type { PlannedJournalSocket } from '../images/plan/restore-plan.ts';
import type { GroupResource } from './resource.ts';

const JOURNAL = '/run/systemd/journal/stdout';
const SHUT_RD = 0;

/**
 * What is sent first through a stream: identifier, unit, level, whether lines may begin with a level, and to
 * where else they go (connect_journal_socket of systemd's src/core/exec-invoke.c). The journal believes root
 * in what it says of the unit.
 */
export function streamHeader({ identifier, level, levelPrefix }: JournalStream, unit: string): string {
  return `${[identifier, unit, level, levelPrefix ? 1 : 0, 0, 0, 0].join('\n')}\n`;
}

function open(planned: PlannedJournalSocket, unit: string): number {
  const fd = planned.kind === 'stream' ? openStream(planned, unit) : openDatagram();
  try {
    if (planned.nonblocking) checked('fcntl', fcntl(fd, F_SETFL, O_NONBLOCK));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** One whose peer is gone, as after a restart of the log daemon: the C library opens it again. */
function openDatagram(): number {
  const [fd, other] = socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC);
  closeSync(other);
  return fd;
}

function openStream(stream: JournalStream, unit: string): number {
  const fd = checked('socket', socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  try {
    const address = Buffer.alloc(2 + SUN_PATH_BYTES);
    address.writeUInt16LE(AF_UNIX, 0);
    address.write(JOURNAL, 2, 'latin1');
    checked('connect', connect(fd, address, address.length));
    checked('shutdown', shutdown(fd, SHUT_RD));
    const header = Buffer.from(streamHeader(stream, unit));
    checked('send', send(fd, header, header.length, 0));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/**
 * Connects sockets that led to the journal to the one of the new system, which is there: for a group that is
 * restored when the system has booted. Throws a SystemCallError if it takes no connection.
 * @param firstFd the descriptor that CRIU has the first one under
 */
export function connectJournalSockets(
  sockets: readonly PlannedJournalSocket[],
  firstFd: number,
  unit: string,
): GroupResource {
  const fds: number[] = [];
  const close = (): void => {
    for (const fd of fds.splice(0)) closeSync(fd);
  };
  try {
    for (const planned of sockets) fds.push(open(planned, unit));
  } catch (error) {
    close();
    throw error;
  }
  return {
    fds: [...fds],
    options: sockets.flatMap(({ inode }, i) => ['--inherit-fd', `fd[${firstFd + i}]:socket:[${inode}]`]),
    finish: () => {
      close();
      return [];
    },
  };
}
