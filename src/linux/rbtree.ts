import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Fields } from '../vmcore/field.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type Bound, pointer, struct, u64, type View } from '../vmcore/view.ts';
import { checkLimit, DEFAULT_LIMIT, readNode, settledWalk } from './container.ts';

/** `struct rb_node` (include/linux/rbtree_types.h); the two low bits of the parent are the colour. */
export const rbNode = struct('rb_node', {
  parentColor: u64.at('__rb_parent_color'),
  right: pointer.at('rb_right'),
  left: pointer.at('rb_left'),
});

const COLOR_MASK = 3n;
/** A red-black tree of 2^63 nodes is at most 126 deep. */
const MAX_DEPTH = 128;

/**
 * Addresses of the `struct rb_node` in each element of a tree, in the tree's order. `root` is the address of
 * a `struct rb_root` or `struct rb_root_cached`. Every node's parent is checked. Throws a ContainerError for
 * a tree that is damaged or has more than `limit` nodes.
 */
export function rbTreeForEach(
  kernel: Kernel,
  root: bigint,
  limit: number = DEFAULT_LIMIT,
): Generator<bigint> {
  return settledWalk(kernel, () => rbTreeWalk(kernel, root, limit));
}

function* rbTreeWalk(kernel: Kernel, root: bigint, limit: number): Generator<bigint> {
  const bound = kernel.bind(rbNode);
  const read = (node: bigint, parent: bigint): { left: bigint; right: bigint } =>
    readNode('rbtree', root, node, () => {
      const { parentColor, left, right } = bound.at(node);
      if ((parentColor & ~COLOR_MASK) !== parent) {
        throw new ContainerError(
          'rbtree',
          root,
          `is damaged: the parent of ${hex(node)} is not ${hex(parent)}`,
        );
      }
      return { left, right };
    });
  const path: { node: bigint; right: bigint }[] = [];
  const descend = (start: bigint, above: bigint): void => {
    let parent = above;
    for (let node = start; node !== 0n; ) {
      if (path.length > MAX_DEPTH)
        throw new ContainerError('rbtree', root, `is deeper than ${MAX_DEPTH} levels`);
      const { left, right } = read(node, parent);
      path.push({ node, right });
      parent = node;
      node = left;
    }
  };
  descend(
    readNode('rbtree', root, root, () => kernel.memory.pointer(root)),
    0n,
  );
  for (let count = 1; ; count++) {
    const top = path.pop();
    if (top === undefined) return;
    checkLimit('rbtree', root, count, limit);
    yield top.node;
    descend(top.right, top.node);
  }
}

/**
 * Views of the structures in a tree that are linked through their member `member`. Throws like {@link
 * rbTreeForEach}.
 */
export function* rbTreeForEachEntry<F extends Fields>(
  kernel: Kernel,
  root: bigint,
  bound: Bound<F>,
  member: string,
  limit: number = DEFAULT_LIMIT,
): Generator<View<F>> {
  const offset = BigInt(bound.offsetOf(member));
  for (const node of rbTreeForEach(kernel, root, limit)) yield bound.at(node - offset);
}
