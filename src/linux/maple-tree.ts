import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct } from '../vmcore/view.ts';
import { checkLimit, DEFAULT_LIMIT, readNode, settledWalk } from './container.ts';

/** Since 6.1 (include/linux/maple_tree.h). */
export const mapleTree = struct('maple_tree', { root: pointer.at('ma_root') });
export const mapleRange64 = struct('maple_range_64', {
  parent: pointer,
  pivot: addressOf(),
  slot: addressOf(),
});
export const mapleArange64 = struct('maple_arange_64', {
  parent: pointer,
  pivot: addressOf(),
  slot: addressOf(),
});
export const mapleNode = struct('maple_node', { parent: pointer, slot: addressOf() });

/** An encoded node pointer has the node's type in bits 3 to 6; nodes are aligned to 256 bytes. */
const NODE_MASK = 255n;
const TYPE_SHIFT = 3n;
const TYPE_MASK = 15n;
/** enum maple_type; only the last two have nodes below them. */
const DENSE = 0;
const LEAF_64 = 1;
const RANGE_64 = 2;
const ARANGE_64 = 3;
const PARENT_ROOT = 1n;
const WORD = 0x1_0000_0000;
/** Entries below this that look like nodes are the xarray's reserved ones. */
const FIRST_NODE = 4096n;

/** An entry of a maple tree: what is stored from `first` to `last` (inclusive). */
export interface MapleEntry {
  /** Exact below 2^53; user addresses are. */
  readonly first: number;
  readonly last: number;
  readonly entry: bigint;
}

/** Whether the root is a node and not the only entry; below the root that follows from the node's type. */
function isNode(entry: bigint): boolean {
  return (entry & 3n) === 2n && entry > FIRST_NODE;
}

interface Node {
  readonly address: bigint;
  readonly type: number;
  readonly parent: bigint;
  readonly pivots: readonly number[];
  readonly slots: readonly bigint[];
}

/** Slot counts of a node type, from the sizes of its arrays in BTF. */
interface Shape {
  readonly parentOffset: number;
  readonly pivotOffset: number;
  readonly pivotCount: number;
  readonly slotOffset: number;
  readonly slotCount: number;
}

const shapes = new WeakMap<Kernel, readonly (Shape | undefined)[]>();

function readShapes(kernel: Kernel): readonly (Shape | undefined)[] {
  const known = shapes.get(kernel);
  if (known !== undefined) return known;
  const shapeOf = (decl: typeof mapleRange64 | typeof mapleArange64): Shape => {
    const bound = kernel.bind(decl);
    const count = (member: string): number => kernel.layouts.member(decl.name, member)?.element?.count ?? 0;
    return {
      parentOffset: bound.offsetOf('parent'),
      pivotOffset: bound.offsetOf('pivot'),
      pivotCount: count('pivot'),
      slotOffset: bound.offsetOf('slot'),
      slotCount: count('slot'),
    };
  };
  const dense: Shape = {
    parentOffset: kernel.bind(mapleNode).offsetOf('parent'),
    pivotOffset: 0,
    pivotCount: 0,
    slotOffset: kernel.bind(mapleNode).offsetOf('slot'),
    slotCount: kernel.layouts.member('maple_node', 'slot')?.element?.count ?? 0,
  };
  const range = shapeOf(mapleRange64);
  const all: (Shape | undefined)[] = [];
  all[DENSE] = dense;
  all[LEAF_64] = range;
  all[RANGE_64] = range;
  all[ARANGE_64] = shapeOf(mapleArange64);
  shapes.set(kernel, all);
  return all;
}

class Walk {
  readonly #kernel: Kernel;
  readonly #tree: bigint;
  /** A node has one place; meeting it again means that the tree is none. */
  readonly #seen = new Set<bigint>();

  constructor(kernel: Kernel, tree: bigint) {
    this.#kernel = kernel;
    this.#tree = tree;
  }

  *node(entry: bigint, parent: bigint, min: number, max: number): Generator<MapleEntry> {
    const node = this.#read(entry);
    if ((node.parent & ~NODE_MASK) !== (parent & ~NODE_MASK) || this.#seen.has(node.address)) {
      throw this.#damaged(`node ${hex(node.address)} does not belong there`);
    }
    this.#seen.add(node.address);
    let first = min;
    for (const [slot, content] of node.slots.entries()) {
      const last = this.#lastOf(node, slot, first, max);
      if (last > max || last < first)
        throw this.#damaged(`the pivots of ${hex(node.address)} are out of order`);
      if (content !== 0n) {
        if (node.type >= RANGE_64) {
          yield* this.node(content, node.address, first, last);
        } else if (!((content & 3n) === 2n && content < FIRST_NODE)) yield { first, last, entry: content };
      }
      if (last >= max) return;
      first = last + 1;
    }
  }

  /** Last index of a slot: its pivot; where there is none (any more), the node's maximum. */
  #lastOf({ type, pivots }: Node, slot: number, first: number, max: number): number {
    if (type === DENSE) return first;
    const pivot = pivots[slot];
    return pivot === undefined || (pivot === 0 && slot > 0) ? max : pivot;
  }

  #damaged(problem: string): ContainerError {
    return new ContainerError('maple tree', this.#tree, `is damaged: ${problem}`);
  }

  #read(entry: bigint): Node {
    const address = entry & ~NODE_MASK;
    const type = Number((entry >> TYPE_SHIFT) & TYPE_MASK);
    const shape = readShapes(this.#kernel)[type];
    if (shape === undefined) throw this.#damaged(`node ${hex(address)} is of type ${type}`);
    return readNode('maple tree', this.#tree, address, () => {
      const { data, offset } = this.#kernel.memory.window(address, Number(NODE_MASK) + 1);
      const pivots: number[] = [];
      for (let i = 0; i < shape.pivotCount; i++) {
        const at = offset + shape.pivotOffset + i * 8;
        pivots.push(data.getUint32(at + 4, true) * WORD + data.getUint32(at, true));
      }
      const slots: bigint[] = [];
      for (let i = 0; i < shape.slotCount; i++)
        slots.push(data.getBigUint64(offset + shape.slotOffset + i * 8, true));
      return { address, type, parent: data.getBigUint64(offset + shape.parentOffset, true), pivots, slots };
    });
  }
}

/**
 * Entries of the `struct maple_tree` at `tree`, ascending, each once with its range; gaps are left out.
 * Parents, pivots and node types are checked. Throws a ContainerError for a tree that is damaged or has more
 * than `limit` entries.
 */
export function mtForEach(
  kernel: Kernel,
  tree: bigint,
  limit: number = DEFAULT_LIMIT,
): Generator<MapleEntry> {
  return settledWalk(kernel, () => mtWalk(kernel, tree, limit));
}

function* mtWalk(kernel: Kernel, tree: bigint, limit: number): Generator<MapleEntry> {
  const root = readNode('maple tree', tree, tree, () => kernel.bind(mapleTree).at(tree).root);
  if (root === 0n) return;
  if (!isNode(root)) {
    if ((root & 3n) !== 2n) yield { first: 0, last: 0, entry: root };
    return;
  }
  let count = 0;
  for (const entry of new Walk(kernel, tree).node(root, tree | PARENT_ROOT, 0, 2 ** 64)) {
    checkLimit('maple tree', tree, ++count, limit);
    yield entry;
  }
}
