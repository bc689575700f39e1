import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct, u16 } from '../vmcore/view.ts';
import type { Sock } from './sock.ts';

/** `struct sk_filter` (include/linux/filter.h): what a socket was given, as the kernel compiled it. */
export const skFilter = struct('sk_filter', { prog: pointer });
/** `struct bpf_prog`; `orig_prog` is the program that it was made from. */
export const bpfProg = struct('bpf_prog', { orig_prog: pointer });
/** `struct sock_fprog_kern`. */
export const sockFprog = struct('sock_fprog_kern', { len: u16, filter: pointer });
/** BPF_MAXINSNS (include/uapi/linux/bpf_common.h). */
const MAX_INSTRUCTIONS = 4096;

/**
 * A socket's filter as SO_ATTACH_FILTER took it, eight bytes (struct sock_filter) an instruction; empty if it
 * has none. Undefined for one that did not come that way (SO_ATTACH_BPF).
 */
export function socketFilter(kernel: Kernel, sock: Sock): bigint[] | undefined {
  if (sock.sk_filter === 0n) return [];
  return classicProgram(
    kernel,
    kernel.bind(bpfProg).at(kernel.bind(skFilter).at(sock.sk_filter).prog).orig_prog,
  );
}

/**
 * A program as it was given, by the address of its `struct sock_fprog_kern`; undefined if there is none, or
 * it is none that the kernel takes.
 */
export function classicProgram(kernel: Kernel, original: bigint): bigint[] | undefined {
  if (original === 0n) return undefined;
  const { len, filter } = kernel.bind(sockFprog).at(original);
  if (len === 0 || len > MAX_INSTRUCTIONS) return undefined;
  const raw = kernel.memory.read(filter, len * 8);
  return Array.from({ length: len }, (_, i) => raw.readBigUInt64LE(i * 8));
}
