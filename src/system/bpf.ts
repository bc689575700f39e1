import { closeSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import { checked, libcFunction } from './libc.ts';

/** bpf(2) of x86-64, with its commands, types and helpers (include/uapi/linux/bpf.h). */
const SYS_bpf = 321;
const command = { mapCreate: 0, mapUpdate: 2, programLoad: 5, linkCreate: 28 } as const;
export const programType = { socketFilter: 1, cgroupSkb: 8, skLookup: 30 } as const;
export const attachType = { cgroupIngress: 0, cgroupEgress: 1, skLookup: 36 } as const;
export const mapType = { hash: 1, sockmap: 15 } as const;
export const helper = { mapLookup: 1, skRelease: 86, skAssign: 124 } as const;

/** `union bpf_attr` as BPF_PROG_LOAD, and as BPF_MAP_UPDATE_ELEM, reads it; without a log. */
const structures = {
  otherworld_bpf_load: {
    ...{ type: 'uint32_t', count: 'uint32_t', instructions: 'const uint8_t *', license: 'const uint8_t *' },
    ...{ logLevel: 'uint32_t', logSize: 'uint32_t', log: 'const uint8_t *' },
    ...{ kernelVersion: 'uint32_t', flags: 'uint32_t', name: 'uint64_t', nameEnd: 'uint64_t' },
    ...{ interfaceIndex: 'uint32_t', attachType: 'uint32_t' },
  },
  otherworld_bpf_element: {
    ...{ map: 'uint32_t', key: 'const uint8_t *', value: 'const uint8_t *', flags: 'uint64_t' },
  },
};
const load = libcFunction<[number: number, command: number, attributes: object, bytes: number]>(
  'long syscall(long number, long command, const otherworld_bpf_load *attributes, long bytes)',
  { otherworld_bpf_load: structures.otherworld_bpf_load },
);
const update = libcFunction<[number: number, command: number, attributes: object, bytes: number]>(
  'long syscall(long number, long command, const otherworld_bpf_element *attributes, long bytes)',
  { otherworld_bpf_element: structures.otherworld_bpf_element },
);
const plain = libcFunction<[number: number, command: number, attributes: Uint8Array, bytes: number]>(
  'long syscall(long number, long command, const uint8_t *attributes, long bytes)',
);

function callWith(which: number, words: readonly number[]): number {
  const attributes = Buffer.from(Uint32Array.from(words).buffer);
  return checked('bpf', plain(SYS_bpf, which, attributes, attributes.length));
}

/** Signals in a row that may come while a program is loaded. */
const MOST_SIGNALS = 100;

/**
 * The kernel gives up looking at a program, with EAGAIN, when a signal comes (do_check,
 * kernel/bpf/verifier.c): it is for the caller to load it once more.
 *
 * @param once loads it, as a function of libc that gives an errno with its sign changed
 */
export function inSpiteOfSignals(once: () => number): number {
  let result = once();
  for (let signals = 1; result === -constants.errno.EAGAIN && signals < MOST_SIGNALS; signals++)
    result = once();
  return result;
}

/** Loads a program. @returns its descriptor @throws SystemCallError, as all of these */
export function loadProgram(type: number, instructions: Buffer, attach: number = 0): number {
  const none = { logLevel: 0, logSize: 0, log: null, kernelVersion: 0, flags: 0, name: 0, nameEnd: 0 };
  const attributes = {
    ...{ type, count: instructions.length / 8, instructions, license: LICENSE },
    ...{ ...none, interfaceIndex: 0, attachType: attach },
  };
  return checked(
    'bpf',
    inSpiteOfSignals(() => load(SYS_bpf, command.programLoad, attributes, 72)),
  );
}

/**
 * Attaches a program to what a descriptor is of: a cgroup, or a network namespace. It is attached as long as
 * somebody has the descriptor that this returns.
 */
export function attachProgram(loaded: number, target: number, attach: number): number {
  return callWith(command.linkCreate, [loaded, target, attach, 0]);
}

/** Makes a map; sizes in bytes. @returns its descriptor */
export function makeMap(type: number, keyBytes: number, valueBytes: number, entries: number): number {
  return callWith(command.mapCreate, [type, keyBytes, valueBytes, entries, 0]);
}

/** Sets the value of a key of a map. */
export function setElement(map: number, key: Uint8Array, value: Uint8Array): void {
  checked('bpf', update(SYS_bpf, command.mapUpdate, { map, key, value, flags: 0 }, 32));
}

/** Where `mark` is in `struct __sk_buff`. */
const MARK = 8;
const LICENSE = Buffer.from('Apache-2.0\0');

/** One instruction: operation, registers (source << 4 | destination), offset and immediate value. */
export function instruction(code: number, registers: number, offset: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt8(code, 0);
  bytes.writeUInt8(registers, 1);
  bytes.writeInt16LE(offset, 2);
  bytes.writeUInt32LE(value, 4);
  return bytes;
}

/** Returns 1, which lets a packet go, if it has the mark, else 0. */
function program(mark: number): Buffer {
  const exit = instruction(0x95, 0, 0, 0);
  return Buffer.concat([
    // r0 = packet->mark; if (r0 == mark) goto the last two
    instruction(0x61, 0x10, MARK, 0),
    ...[instruction(0x15, 0, 2, mark), instruction(0xb7, 0, 0, 0), exit],
    ...[instruction(0xb7, 0, 0, 1), exit],
  ]);
}

const ways = { sent: attachType.cgroupEgress, received: attachType.cgroupIngress } as const;

/**
 * Holds back every packet that a socket would send, or receive, which was made in a cgroup, or below it, but
 * those with a mark (SO_MARK). For the socket it is as if the packets were lost on their way.
 *
 * @param directory of the cgroup (v2)
 * @returns a function that lets packets go again. They go as well when this program ends
 * @throws SystemCallError, and the file system's error
 */
export function holdBackPackets(
  directory: string,
  mark: number,
  which: readonly (keyof typeof ways)[] = ['sent'],
): () => void {
  const loaded = loadProgram(programType.cgroupSkb, program(mark));
  const links: number[] = [];
  const end = (): void => {
    for (const fd of links.splice(0)) closeSync(fd);
  };
  try {
    const cgroup = openSync(directory, 'r');
    try {
      for (const way of which) links.push(attachProgram(loaded, cgroup, ways[way]));
    } finally {
      closeSync(cgroup);
    }
    return end;
  } catch (error) {
    end();
    throw error;
  } finally {
    closeSync(loaded);
  }
}
