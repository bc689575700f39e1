import { closeSync, openSync } from 'node:fs';
import { SOCK_STREAM } from './abi.ts';
import {
  attachProgram,
  attachType,
  helper,
  instruction,
  loadProgram,
  makeMap,
  mapType,
  programType,
  setElement,
} from './bpf.ts';
import { checked } from './libc.ts';
import { inNewNetwork } from './namespaces.ts';
import {
  AF_INET,
  AF_INET6,
  listen,
  SOCK_CLOEXEC,
  SOL_SOCKET,
  setsockopt,
  socket,
  type TcpEnd,
} from './sockets.ts';

/** A TCP connection of this machine; both addresses are of one family. */
export interface TcpEnds {
  readonly own: TcpEnd;
  readonly peer: TcpEnd;
}

/** include/uapi/asm-generic/socket.h */
const SO_ATTACH_BPF = 50;

/**
 * Offsets in `struct bpf_sk_lookup` (include/uapi/linux/bpf.h) of what makes a key, in the order in which a
 * key has them, 4 bytes each: addresses of the family that a segment does not have are 0.
 */
const REMOTE = { ip4: 16, ip6: 20, port: 36 } as const;
const LOCAL = { ip4: 40, ip6: 44, port: 60 } as const;
const WORDS = [
  ...[REMOTE.ip4, LOCAL.ip4],
  ...[0, 4, 8, 12].map((at) => REMOTE.ip6 + at),
  ...[0, 4, 8, 12].map((at) => LOCAL.ip6 + at),
  ...[REMOTE.port, LOCAL.port],
] as const;
const KEY_BYTES = 4 * WORDS.length;
const VALUE_BYTES = 4;
/** A key's value: which of the sockets has segments of the connection. */
const slots = [AF_INET, AF_INET6] as const;

/** The remote port is in network order there, the local one is a number. */
function keyOf({ own, peer }: TcpEnds): Buffer {
  const key = Buffer.alloc(KEY_BYTES);
  const isFour = own.address.length === 4;
  Buffer.from(peer.address).copy(key, isFour ? 0 : 8);
  Buffer.from(own.address).copy(key, isFour ? 4 : 24);
  key.writeUInt16BE(peer.port, 40);
  key.writeUInt32LE(own.port, 44);
  return key;
}

/** Registers of BPF: 0 results, 1 to 3 arguments, 6 and 7 kept over calls, 10 the stack. */
function registers(source: number, destination: number): number {
  return (source << 4) | destination;
}

function mapInto(register: number, map: number): Buffer[] {
  // BPF_PSEUDO_MAP_FD
  return [instruction(0x18, registers(1, register), 0, map), instruction(0, 0, 0, 0)];
}

const call = (which: number): Buffer => instruction(0x85, 0, 0, which);
const move = (destination: number, source: number): Buffer =>
  instruction(0xbf, registers(source, destination), 0, 0);

/**
 * Gives a segment of one of the connections to the socket that its family has, if no connection of this
 * machine has taken it before: those are asked first (__inet_lookup(), include/net/inet_hashtables.h).
 */
function lookup(connections: number, sockets: number): Buffer {
  const given = [
    ...[move(7, 0), move(1, 6), move(2, 7), instruction(0xb7, 3, 0, 0), call(helper.skAssign)],
    ...[move(1, 7), call(helper.skRelease)],
  ];
  const found = [
    ...mapInto(1, sockets),
    ...[move(2, 0), call(helper.mapLookup), instruction(0x15, 0, given.length, 0)],
    ...given,
  ];
  return Buffer.concat([
    move(6, 1),
    ...WORDS.flatMap((offset, i) => [
      instruction(0x61, registers(6, 0), offset, 0),
      instruction(0x63, registers(0, 10), 4 * i - KEY_BYTES, 0),
    ]),
    ...mapInto(1, connections),
    ...[move(2, 10), instruction(0x07, 2, 0, -KEY_BYTES >>> 0), call(helper.mapLookup)],
    instruction(0x15, 0, found.length, 0),
    ...found,
    // SK_PASS
    ...[instruction(0xb7, 0, 0, 1), instruction(0x95, 0, 0, 0)],
  ]);
}

/** Takes nothing of a packet. */
const NOTHING = Buffer.concat([instruction(0xb7, 0, 0, 0), instruction(0x95, 0, 0, 0)]);

/** A socket that listens, and drops all that comes; its port is one of a network where nobody wants it. */
function deafSocket(family: number): number {
  const filter = loadProgram(programType.socketFilter, NOTHING);
  try {
    return inNewNetwork(() => {
      const made = checked('socket', socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const value = Buffer.alloc(4);
      value.writeInt32LE(filter);
      try {
        checked('setsockopt', setsockopt(made, SOL_SOCKET, SO_ATTACH_BPF, value, value.length));
        checked('listen', listen(made, 1));
        return made;
      } catch (error) {
        closeSync(made);
        throw error;
      }
    });
  } finally {
    closeSync(filter);
  }
}

function attach(connections: number, sockets: number): number {
  const loaded = loadProgram(programType.skLookup, lookup(connections, sockets), attachType.skLookup);
  try {
    const network = openSync('/proc/thread-self/ns/net', 'r');
    try {
      return attachProgram(loaded, network, attachType.skLookup);
    } finally {
      closeSync(network);
    }
  } finally {
    closeSync(loaded);
  }
}

/**
 * Has the kernel say nothing to segments of TCP connections that are not there: no reset, as if they had been
 * lost on their way. It depends on no interface; a firewall that answers by itself is asked before. A socket
 * that has such a connection gets its segments from the moment at which it is connected.
 *
 * A program for the lookup of sockets finds a socket for them that drops everything. (SK_DROP of such a
 * program would be answered with a reset: tcp_v4_rcv(), net/ipv4/tcp_ipv4.c.)
 *
 * @returns descriptors. It is so as long as somebody has all of them
 * @throws SystemCallError
 */
export function leaveUnanswered(all: readonly TcpEnds[]): number[] {
  const families = slots.filter((family) =>
    all.some(({ own }) => own.address.length === (family === AF_INET ? 4 : 16)),
  );
  const kept: number[] = [];
  const maps: number[] = [];
  const word = (value: number): Buffer => Buffer.from(Uint32Array.of(value).buffer);
  try {
    const connections = makeMap(mapType.hash, KEY_BYTES, VALUE_BYTES, all.length);
    maps.push(connections);
    const sockets = makeMap(mapType.sockmap, 4, VALUE_BYTES, slots.length);
    // The program has both; what is in the second goes with its descriptor.
    maps.push(sockets);
    for (const family of families) {
      const deaf = deafSocket(family);
      kept.push(deaf);
      setElement(sockets, word(slots.indexOf(family)), word(deaf));
    }
    for (const one of all) setElement(connections, keyOf(one), word(one.own.address.length === 4 ? 0 : 1));
    kept.push(attach(connections, sockets));
    return kept;
  } catch (error) {
    for (const fd of kept) closeSync(fd);
    throw error;
  } finally {
    for (const fd of maps) closeSync(fd);
  }
}
