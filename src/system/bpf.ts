import { closeSync, openSync } from 'node:fs';
import { checked, libcFunction } from './libc.ts';

/** bpf(2) of x86-64, with its commands and types (include/uapi/linux/bpf.h). */
const SYS_bpf = 321;
const [BPF_PROG_LOAD, BPF_LINK_CREATE] = [5, 28];
const BPF_PROG_TYPE_CGROUP_SKB = 8;
const BPF_CGROUP_INET_EGRESS = 1;

/** The beginning of `union bpf_attr`, as BPF_PROG_LOAD reads it; without a log. */
const structures = {
  otherworld_bpf_load: {
    type: 'uint32_t',
    count: 'uint32_t',
    instructions: 'const uint8_t *',
    license: 'const uint8_t *',
  },
};
const load = libcFunction<[number: number, command: number, attributes: object, bytes: number]>(
  'long syscall(long number, long command, const otherworld_bpf_load *attributes, long bytes)',
  structures,
);
const link = libcFunction<[number: number, command: number, attributes: Uint8Array, bytes: number]>(
  'long syscall(long number, long command, const uint8_t *attributes, long bytes)',
);

/** Where `mark` is in `struct __sk_buff`. */
const MARK = 8;
const LICENSE = Buffer.from('Apache-2.0\0');

/** One instruction: operation, registers (source << 4 | destination), offset and immediate value. */
function instruction(code: number, registers: number, offset: number, value: number): Buffer {
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

/**
 * Holds back every packet that a socket would send which was made in a cgroup, or below it, but those with a
 * mark (SO_MARK). For the socket it is as if the packets were lost on their way.
 *
 * @param directory of the cgroup (v2)
 * @returns a function that lets packets go again. They go as well when this program ends
 * @throws SystemCallError, and the file system's error
 */
export function holdBackPackets(directory: string, mark: number): () => void {
  const instructions = program(mark);
  const attributes = {
    ...{ type: BPF_PROG_TYPE_CGROUP_SKB, count: instructions.length / 8 },
    ...{ instructions, license: LICENSE },
  };
  const loaded = checked('bpf', load(SYS_bpf, BPF_PROG_LOAD, attributes, 24));
  const cgroup = openSync(directory, 'r');
  try {
    const links = Buffer.alloc(16);
    [loaded, cgroup, BPF_CGROUP_INET_EGRESS].forEach((word, i) => {
      links.writeUInt32LE(word, 4 * i);
    });
    const made = checked('bpf', link(SYS_bpf, BPF_LINK_CREATE, links, links.length));
    return () => closeSync(made);
  } finally {
    closeSync(cgroup);
    closeSync(loaded);
  }
}
