import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { SOCK_DGRAM } from '../../system/abi.ts';
import { errnoText } from '../../system/errno.ts';
import {
  AF_NETLINK,
  bind,
  recv,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  send,
  setsockopt,
  socket,
} from '../../system/sockets.ts';

const { errno } = constants;
const NETLINK_CONNECTOR = 11;
const CN_IDX_PROC = 1;
const CN_VAL_PROC = 1;
const PROC_CN_MCAST_LISTEN = 1;
const PROC_EVENT_EXEC = 0x0000_0002;
const PROC_EVENT_EXIT = 0x8000_0000;
const NLMSG_DONE = 3;
const SO_RCVBUFFORCE = 33;
/** Room for some ten thousand events: a restore of many threads makes thousands in a second. */
const RECEIVE_BYTES = 16 * 2 ** 20;

const netlinkHeaderBytes = 16;
const connectorHeaderBytes = 20;
/**
 * `struct proc_event` after the two headers: what, CPU, time, then pid and tgid, and for an exit its code.
 */
const eventOffset = netlinkHeaderBytes + connectorHeaderBytes;
const pidOffset = eventOffset + 16;

/** A process executed another program, or ended with a status as in wait(2). */
export type ProcessEvent =
  | { readonly kind: 'exec'; readonly pid: number }
  | { readonly kind: 'exit'; readonly pid: number; readonly status: number };

/** The kernel does not tell of processes; the message says why. */
export class ProcessEventsError extends Error {
  override readonly name = 'ProcessEventsError';
}

/**
 * What the kernel tells of every process that executes a program or ends: the process events connector
 * (drivers/connector/cn_proc.c, CONFIG_PROC_EVENTS). It is the only way to learn how a process ended that is
 * somebody else's child. Needs root.
 */
export class ProcessEvents {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(4096);
  #lost = false;

  /** Listens from now on. Throws a ProcessEventsError if the kernel refuses. */
  constructor() {
    const fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_CONNECTOR);
    if (fd < 0) throw new ProcessEventsError(`no netlink connector (${errnoText(-fd)})`);
    this.#fd = fd;
    const address = Buffer.alloc(12);
    address.writeUInt16LE(AF_NETLINK, 0);
    address.writeUInt32LE(CN_IDX_PROC, 8);
    const request = listenRequest();
    const size = Buffer.alloc(4);
    size.writeInt32LE(RECEIVE_BYTES);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, size.length);
    const bound = bind(fd, address, address.length);
    const result = bound < 0 ? bound : send(fd, request, request.length, 0);
    if (result >= 0) return;
    closeSync(fd);
    throw new ProcessEventsError(`the kernel does not tell of process events (${errnoText(-result)})`);
  }

  /** Whether the kernel had no room for some event. */
  get lost(): boolean {
    return this.#lost;
  }

  /**
   * What happened since the last call, in order. Does not wait. Throws a ProcessEventsError if nothing more
   * will be told, and all that was has been.
   */
  take(): ProcessEvent[] {
    const events: ProcessEvent[] = [];
    for (;;) {
      const length = recv(this.#fd, this.#buffer, this.#buffer.length, 0);
      if (length === -errno.EAGAIN) return events;
      if (length < 0) {
        // It is told at the next call as well.
        if (length !== -errno.ENOBUFS && events.length > 0) return events;
        if (length !== -errno.ENOBUFS)
          throw new ProcessEventsError(`process events cannot be received (${errnoText(-length)})`);
        this.#lost = true;
        continue;
      }
      const event = parseEvent(this.#buffer.subarray(0, length));
      if (event !== undefined) events.push(event);
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function listenRequest(): Buffer {
  const request = Buffer.alloc(eventOffset + 4);
  request.writeUInt32LE(request.length, 0);
  request.writeUInt16LE(NLMSG_DONE, 4);
  request.writeUInt32LE(process.pid, 12);
  request.writeUInt32LE(CN_IDX_PROC, netlinkHeaderBytes);
  request.writeUInt32LE(CN_VAL_PROC, netlinkHeaderBytes + 4);
  request.writeUInt16LE(4, netlinkHeaderBytes + 16);
  request.writeUInt32LE(PROC_CN_MCAST_LISTEN, eventOffset);
  return request;
}

/** The event of a message; undefined for the others (forks, threads that end, acknowledgements). */
function parseEvent(message: Buffer): ProcessEvent | undefined {
  if (message.length < pidOffset + 8) return undefined;
  const what = message.readUInt32LE(eventOffset);
  const thread = message.readInt32LE(pidOffset);
  const pid = message.readInt32LE(pidOffset + 4);
  if (what === PROC_EVENT_EXEC) return { kind: 'exec', pid };
  if (what !== PROC_EVENT_EXIT || thread !== pid || message.length < pidOffset + 12) return undefined;
  return { kind: 'exit', pid, status: message.readUInt32LE(pidOffset + 8) };
}
