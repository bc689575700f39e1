import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct, u8 } from '../vmcore/view.ts';
import { checkLimit, DEFAULT_LIMIT, readNode, settled, settledWalk } from './container.ts';

/** `struct xarray`, of which `struct radix_tree_root` is another name (include/linux/xarray.h). */
export const xarray = struct('xarray', { head: pointer.at('xa_head') });
export const xaNode = struct('xa_node', {
  shift: u8,
  offset: u8,
  count: u8,
  parent: pointer,
  slots: addressOf(),
});

/** XA_CHUNK_SHIFT without CONFIG_BASE_SMALL, and the slots of a node. */
const CHUNK_SHIFT = 6;
const SLOTS = 1 << CHUNK_SHIFT;
/** Internal entries below this are no nodes: siblings, retry (256), zero (257). */
const FIRST_NODE = 4096n;
const SIBLING_MAX = 62n;
const XA_ZERO_ENTRY = (257n << 2n) | 2n;
const MAX_INDEX_BITS = 64;

/** An entry of an xarray. */
export interface XarrayEntry {
  /** First index that it is stored at; exact below 2^53. */
  readonly index: number;
  /** Number of indices that it is stored at: more than 1 for a large folio. */
  readonly span: number;
  /** The pointer as stored; a value entry (swap entry, number) has bit 0 set: see {@link xaToValue}. */
  readonly entry: bigint;
}

/** Whether an entry is a number and not a pointer. */
export function xaIsValue(entry: bigint): boolean {
  return (entry & 1n) === 1n;
}

/** The number in a value entry. */
export function xaToValue(entry: bigint): bigint {
  return entry >> 1n;
}

function isInternal(entry: bigint): boolean {
  return (entry & 3n) === 2n;
}

function isNode(entry: bigint): boolean {
  return isInternal(entry) && entry > FIRST_NODE;
}

function isSibling(entry: bigint): boolean {
  return isInternal(entry) && entry >> 2n < SIBLING_MAX + 1n;
}

interface Node {
  readonly address: bigint;
  readonly shift: number;
  /** Slots in use, as the kernel counts them; reserved and sibling slots are among them. */
  readonly count: number;
  readonly slots: readonly bigint[];
}

/** Reads a node and checks its place: parent, offset in it, and a shift one level below. */
function readXaNode(
  kernel: Kernel,
  xa: bigint,
  entry: bigint,
  parent: Node | undefined,
  offset: number,
): Node {
  const address = entry & ~3n;
  return readNode('xarray', xa, address, () => {
    const bound = kernel.bind(xaNode);
    const node = bound.at(address);
    const isPlaced =
      parent === undefined
        ? node.parent === 0n && node.shift % CHUNK_SHIFT === 0 && node.shift < MAX_INDEX_BITS
        : node.parent === parent.address &&
          node.offset === offset &&
          node.shift === parent.shift - CHUNK_SHIFT;
    if (!isPlaced)
      throw new ContainerError('xarray', xa, `is damaged: node ${hex(address)} is not where it belongs`);
    const { data, offset: at } = kernel.memory.window(node.slots, SLOTS * 8);
    const slots = Array.from({ length: SLOTS }, (_, i) => data.getBigUint64(at + i * 8, true));
    return { address, shift: node.shift, count: node.count, slots };
  });
}

function spanOf(node: Node, slot: number): number {
  let siblings = 0;
  while (slot + siblings + 1 < SLOTS && isSibling(node.slots[slot + siblings + 1] ?? 0n)) siblings++;
  return (siblings + 1) * 2 ** node.shift;
}

/** A slot that was lost leaves fewer than the node counts. */
function checkCount(xa: bigint, { address, count, slots }: Node): void {
  const used = slots.filter((entry) => entry !== 0n).length;
  if (used !== count)
    throw new ContainerError(
      'xarray',
      xa,
      `is damaged: ${hex(address)} has ${used} entries and counts ${count}`,
    );
}

function* walkNode(
  kernel: Kernel,
  xa: bigint,
  node: Node,
  base: number,
  isCounted: boolean,
): Generator<XarrayEntry> {
  if (isCounted) checkCount(xa, node);
  for (let slot = 0; slot < SLOTS; slot++) {
    const entry = node.slots[slot] ?? 0n;
    if (entry === 0n) continue;
    const index = base + slot * 2 ** node.shift;
    if (isNode(entry)) {
      if (node.shift === 0)
        throw new ContainerError('xarray', xa, `is damaged: ${hex(node.address)} has a node below it`);
      yield* walkNode(kernel, xa, readXaNode(kernel, xa, entry, node, slot), index, isCounted);
    } else if (!isInternal(entry)) yield { index, span: spanOf(node, slot), entry };
  }
}

/**
 * Entries of a `struct xarray` or `struct radix_tree_root` at `xa`, ascending. Reserved (zero) entries are
 * left out. Throws a ContainerError for a tree that is damaged or has more than `limit` entries.
 *
 * @param isCounted whether each node's count of slots is that of its entries: it is in an xarray; an IDR also
 * counts numbers that are reserved and have nothing yet (calculate_count, lib/radix-tree.c)
 */
export function xaForEach(
  kernel: Kernel,
  xa: bigint,
  limit: number = DEFAULT_LIMIT,
  isCounted = false,
): Generator<XarrayEntry> {
  return settledWalk(kernel, () => xaWalk(kernel, xa, limit, isCounted));
}

/**
 * The same, read once, also of a living kernel: for who looks at each of very many entries when it is found,
 * and reads all of it again if need be (`settled`).
 */
export function* xaWalk(
  kernel: Kernel,
  xa: bigint,
  limit: number,
  isCounted: boolean,
): Generator<XarrayEntry> {
  const head = readNode('xarray', xa, xa, () => kernel.bind(xarray).at(xa).head);
  if (head === 0n || head === XA_ZERO_ENTRY) return;
  if (!isNode(head)) {
    if (!isInternal(head)) yield { index: 0, span: 1, entry: head };
    return;
  }
  let count = 0;
  for (const entry of walkNode(kernel, xa, readXaNode(kernel, xa, head, undefined, 0), 0, isCounted)) {
    checkLimit('xarray', xa, ++count, limit);
    yield entry;
  }
}

/**
 * The entry at `index` (below 2^53) of a `struct xarray`; 0n if there is none. Throws like {@link xaForEach}.
 */
export function xaLoad(kernel: Kernel, xa: bigint, index: number): bigint {
  return settled(kernel, () => entryAt(kernel, xa, index));
}

function entryAt(kernel: Kernel, xa: bigint, index: number): bigint {
  let entry = readNode('xarray', xa, xa, () => kernel.bind(xarray).at(xa).head);
  if (!isNode(entry)) return index === 0 && !isInternal(entry) ? entry : 0n;
  let parent: Node | undefined;
  let slot = 0;
  while (isNode(entry)) {
    const node: Node = readXaNode(kernel, xa, entry, parent, slot);
    if (parent === undefined && index >= 2 ** (node.shift + CHUNK_SHIFT)) return 0n;
    slot = Math.floor(index / 2 ** node.shift) % SLOTS;
    entry = node.slots[slot] ?? 0n;
    if (isSibling(entry)) {
      slot = Number(entry >> 2n);
      entry = node.slots[slot] ?? 0n;
    }
    parent = node;
  }
  return isInternal(entry) ? 0n : entry;
}

/** Indices of {@link xaChunk}: those of a node at the bottom. */
export const XA_CHUNK = SLOTS;

/**
 * The entries at the {@link XA_CHUNK} indices from `first` (a multiple of it, below 2^53) on; 0n where there
 * is none. For who looks up neighbours: one look at each node on the way. Throws like {@link xaForEach}.
 */
export function xaChunk(kernel: Kernel, xa: bigint, first: number): readonly bigint[] {
  return settled(kernel, () => chunkAt(kernel, xa, first));
}

function chunkAt(kernel: Kernel, xa: bigint, first: number): readonly bigint[] {
  let entry = readNode('xarray', xa, xa, () => kernel.bind(xarray).at(xa).head);
  const all = (value: bigint): bigint[] => new Array<bigint>(SLOTS).fill(value);
  if (!isNode(entry)) return all(0n).with(0, first === 0 && !isInternal(entry) ? entry : 0n);
  let parent: Node | undefined;
  let slot = 0;
  while (isNode(entry)) {
    const node: Node = readXaNode(kernel, xa, entry, parent, slot);
    if (parent === undefined && first >= 2 ** (node.shift + CHUNK_SHIFT)) return all(0n);
    checkCount(xa, node);
    if (node.shift === 0) return node.slots.map((_, at) => fullSlot(node, at));
    slot = Math.floor(first / 2 ** node.shift) % SLOTS;
    entry = node.slots[slot] ?? 0n;
    if (isSibling(entry)) entry = node.slots[Number(entry >> 2n)] ?? 0n;
    parent = node;
  }
  return all(isInternal(entry) ? 0n : entry);
}

/** What a slot at the bottom has, which another slot may have for it. */
function fullSlot({ slots }: Node, slot: number): bigint {
  const own = slots[slot] ?? 0n;
  const entry = isSibling(own) ? (slots[Number(own >> 2n)] ?? 0n) : own;
  return isInternal(entry) ? 0n : entry;
}
