import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import koffi from 'koffi';
import { z } from 'zod';
import type { GroupFiles } from '../../model/file.ts';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const F_SETFL = 4;
const O_NONBLOCK = 0o4000;
/** First descriptor that `criu` gets besides the standard ones. */
const FIRST_FD = 3;

const libc = koffi.load('libc.so.6');
const socketpair = libc.func('int socketpair(int domain, int type, int protocol, _Out_ int *pair)');
const fcntl = libc.func('int fcntl(int fd, int command, int argument)');

/** A socket to the journal that is to be connected anew. */
export const logStreamSchema = z.strictObject({
  /** By this number CRIU's images know the socket. */
  inode: z.int(),
  identifier: z.string(),
  nonblocking: z.boolean(),
});

export type LogStream = z.infer<typeof logStreamSchema>;

/** The sockets of a group that lead to the journal. */
export function logStreamsOf({ files }: GroupFiles): LogStream[] {
  return files.flatMap((file) => {
    if (file.type !== 'unix' || file.logStream === undefined) return [];
    return [{ inode: file.inode, identifier: file.logStream, nonblocking: (file.flags & O_NONBLOCK) !== 0 }];
  });
}

/**
 * Waits until the new system's journal takes streams, then copies what the process writes to it. Without a journal for ten
 * minutes the text is thrown away, so that the process does not block.
 */
const RELAY = `
i=0
until [ -S /run/systemd/journal/stdout ]; do
    i=$((i + 1))
    [ $i -gt 1200 ] && exec cat >/dev/null
    sleep 0.5
done
exec systemd-cat --identifier="$1" cat`;

/** Descriptors and options for `criu restore`, and what to do when it has ended. */
export interface OpenLogStreams {
  /** For `spawn`, as descriptors from 3 on. */
  readonly fds: readonly number[];
  readonly options: readonly string[];
  /** Starts the relays, or, if the restore failed, drops everything; once. Returns the relays' process ids. */
  finish(isRestored: boolean): number[];
}

function makePair({ inode, nonblocking }: LogStream): [number, number] {
  const pair: [number, number] = [-1, -1];
  const result: unknown = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
  if (result !== 0) throw new Error(`no socket for the log stream ${inode}: errno ${koffi.errno()}`);
  if (nonblocking) fcntl(pair[0], F_SETFL, O_NONBLOCK);
  return pair;
}

function startRelay(fd: number, { identifier }: LogStream): number | undefined {
  const relay = spawn('/bin/sh', ['-c', RELAY, 'otherworld-log', identifier], {
    stdio: [fd, 'ignore', 'ignore'],
    detached: true,
    cwd: '/',
  });
  relay.on('error', () => undefined);
  relay.unref();
  return relay.pid;
}

/**
 * Makes a socket for each log stream, with one end for the process that is restored. What it writes waits in the socket until the
 * journal of the new system is there.
 */
export function openLogStreams(streams: readonly LogStream[]): OpenLogStreams {
  let pairs = streams.map(makePair);
  return {
    fds: pairs.map(([process]) => process),
    options: streams.flatMap(({ inode }, i) => ['--inherit-fd', `fd[${FIRST_FD + i}]:socket:[${inode}]`]),
    finish: (isRestored) => {
      const open = pairs;
      pairs = [];
      return open.flatMap(([process, other], i) => {
        closeSync(process);
        const stream = streams[i];
        const pid = isRestored && stream !== undefined ? startRelay(other, stream) : undefined;
        closeSync(other);
        return pid === undefined ? [] : [pid];
      });
    },
  };
}
