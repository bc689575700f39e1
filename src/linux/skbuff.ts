import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct, u8, u32, type ViewOf } from '../vmcore/view.ts';
import { bioVecStruct } from './bvec.ts';
import { settled } from './container.ts';
import { pageFrames, requirePhysical } from './mm.ts';

/** `struct sk_buff` (include/linux/skbuff.h). `end` is an offset from `head` on 64-bit machines. */
export const skBuff = struct('sk_buff', {
  next: pointer,
  rbnode: addressOf('rbnode'),
  sk: pointer,
  cb: addressOf('cb'),
  len: u32,
  data_len: u32,
  end: u32,
  head: pointer,
  data: pointer,
});

export type SkBuff = ViewOf<typeof skBuff>;

export const skBuffHead = struct('sk_buff_head', { next: pointer, qlen: u32 });

export const sharedInfo = struct('skb_shared_info', {
  nr_frags: u8,
  frag_list: pointer,
  frags: addressOf('frags'),
});

/**
 * A page fragment; 6.6 renamed the members of `struct bio_vec`, which it had been, and 6.9 the page to
 * netmem.
 */
export const netmemFrag = struct('skb_frag', {
  page: pointer.at('netmem'),
  length: u32.at('len'),
  offset: u32.at('offset'),
});

/**
 * Buffers that a queue can hold in a sound kernel: sk_rcvbuf is below 2^31 and a buffer costs at least 256
 * bytes.
 */
const MAX_QUEUE = 1 << 23;
const MAX_SKB_BYTES = 1 << 28;
const MAX_FRAGS = 64;
/** Buffers behind one, and buffers behind those: GRO makes 64 KiB of them, or with BIG TCP 512 KiB. */
const MAX_BUFFERS = 4096;
const MAX_DEPTH = 2;

/** Bytes of physical memory; adjacent in the stream. */
interface Run {
  readonly physical: number;
  readonly length: number;
}

/**
 * The buffers of a queue (`sk_buff_head`) in order. Throws a ContainerError if the list has another length
 * than `qlen` says or does not come back to its head.
 */
export function skbQueue(kernel: Kernel, head: bigint): SkBuff[] {
  return settled(kernel, () => readQueue(kernel, head));
}

function readQueue(kernel: Kernel, head: bigint): SkBuff[] {
  const { next, qlen } = kernel.bind(skBuffHead).at(head);
  if (qlen > MAX_QUEUE) throw new ContainerError('socket queue', head, `has ${qlen} buffers`);
  const Skb = kernel.bind(skBuff);
  const buffers: SkBuff[] = [];
  for (let at = next; at !== head; ) {
    if (buffers.length >= qlen)
      throw new ContainerError('socket queue', head, `has more than its ${qlen} buffers`);
    const skb = Skb.at(at);
    buffers.push(skb);
    at = skb.next;
  }
  if (buffers.length !== qlen) {
    throw new ContainerError('socket queue', head, `has ${buffers.length} of its ${qlen} buffers`);
  }
  return buffers;
}

/**
 * Physical runs of direct-mapped kernel memory; pages are adjacent there, so this is one run unless
 * translation says no.
 */
function kernelRuns(kernel: Kernel, address: bigint, length: number): Run[] {
  const runs: { physical: number; length: number }[] = [];
  let at = address;
  let left = length;
  while (left > 0) {
    const chunk = Math.min(left, PAGE_SIZE - Number(at & 0xfffn));
    const physical = kernel.memory.translate(at);
    requirePhysical(kernel, physical, chunk, 'sk_buff.data');
    const last = runs.at(-1);
    if (last !== undefined && last.physical + last.length === physical) last.length += chunk;
    else runs.push({ physical, length: chunk });
    at += BigInt(chunk);
    left -= chunk;
  }
  return runs;
}

/** Further buffers, which a network card's driver or GRO has put behind one; each begins with payload. */
function furtherBuffers(kernel: Kernel, skb: SkBuff, first: bigint, depth: number): Run[] {
  if (depth > MAX_DEPTH) throw new ContainerError('sk_buff', skb.address, 'has buffers behind buffers');
  const Skb = kernel.bind(skBuff);
  const runs: Run[] = [];
  let count = 0;
  for (let at = first; at !== 0n; at = Skb.at(at).next) {
    if (++count > MAX_BUFFERS)
      throw new ContainerError('sk_buff', skb.address, `has more than ${MAX_BUFFERS} further buffers`);
    runs.push(...allData(kernel, Skb.at(at), depth + 1));
  }
  return runs;
}

function fragments(kernel: Kernel, skb: SkBuff, depth: number): Run[] {
  const shared = kernel.bind(sharedInfo).at(skb.head + BigInt(skb.end));
  const count = shared.nr_frags;
  if (count > MAX_FRAGS) throw new ContainerError('sk_buff', skb.address, `has ${count} fragments`);
  const Frag = kernel.hasMember('skb_frag', 'netmem') ? kernel.bind(netmemFrag) : kernel.bind(bioVecStruct);
  const inPages = Array.from({ length: count }, (_, i) => {
    const { page, length, offset } = Frag.at(shared.frags + BigInt(i * Frag.size));
    const pages = Math.ceil((offset + length) / PAGE_SIZE);
    return { physical: pageFrames(kernel, page, pages, 'sk_buff fragment') + offset, length };
  });
  const { frag_list: further } = shared;
  return further === 0n ? inPages : [...inPages, ...furtherBuffers(kernel, skb, further, depth)];
}

/**
 * Where the whole payload of a buffer lies. Throws a ContainerError if the parts do not add up to `len` or
 * have an impossible size.
 */
function allData(kernel: Kernel, skb: SkBuff, depth = 0): Run[] {
  const { len, data_len: paged } = skb;
  if (len > MAX_SKB_BYTES || paged > len) {
    throw new ContainerError('sk_buff', skb.address, `has ${paged} of ${len} bytes in pages`);
  }
  const linear = kernelRuns(kernel, skb.data, len - paged);
  const runs = paged === 0 ? linear : [...linear, ...fragments(kernel, skb, depth)];
  const total = runs.reduce((sum, run) => sum + run.length, 0);
  if (total !== len) throw new ContainerError('sk_buff', skb.address, `holds ${total} of its ${len} bytes`);
  return runs;
}

/**
 * Where the payload of a buffer lies from byte `skip` on. Throws a ContainerError if the parts do not add up
 * to `len` or have an impossible size.
 */
export function skbData(kernel: Kernel, skb: SkBuff, skip = 0): Run[] {
  if (skip > skb.len) throw new ContainerError('sk_buff', skb.address, `has fewer bytes than ${skip}`);
  let drop = skip;
  return allData(kernel, skb).flatMap(({ physical, length }) => {
    const cut = Math.min(drop, length);
    drop -= cut;
    return length === cut ? [] : [{ physical: physical + cut, length: length - cut }];
  });
}
