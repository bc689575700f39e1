import { ContainerError, hex } from '../vmcore/errors.ts';
import type { Fields } from '../vmcore/field.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Bound, View } from '../vmcore/view.ts';
import { checkLimit, DEFAULT_LIMIT, readNode } from './container.ts';

/** `struct hlist_node` (include/linux/types.h): `next`, then `pprev`, the address of the pointer to this node. */
const PPREV = 8n;

/** Whether the `struct hlist_head` at `head` has no elements. */
export function hlistEmpty(kernel: Kernel, head: bigint): boolean {
  return kernel.memory.pointer(head) === 0n;
}

function* walk(
  kernel: Kernel,
  container: string,
  head: bigint,
  isEnd: (node: bigint) => boolean,
  limit: number,
): Generator<bigint> {
  const { memory } = kernel;
  let before = head;
  let link = head;
  let node = readNode(container, head, head, () => memory.pointer(head));
  for (let count = 1; !isEnd(node); count++) {
    checkLimit(container, head, count, limit);
    const at = node;
    const pprev = readNode(container, head, at, () => memory.pointer(at + PPREV));
    if (pprev !== link && pprev !== before) {
      throw new ContainerError(
        container,
        head,
        `is damaged: ${hex(at)} points back to ${hex(pprev)}, not ${hex(link)}`,
      );
    }
    yield at;
    before = link;
    link = at;
    node = readNode(container, head, at, () => memory.pointer(at));
  }
}

/**
 * Addresses of the `struct hlist_node` in each element of the list at `head` (a `struct hlist_head`), in order. Back
 * pointers are checked as in a list. Throws a ContainerError for a list that is damaged or longer than `limit`.
 */
export function hlistForEach(kernel: Kernel, head: bigint, limit: number = DEFAULT_LIMIT): Generator<bigint> {
  return walk(kernel, 'hlist', head, (node) => node === 0n, limit);
}

/** The same for a `struct hlist_nulls_head` (include/linux/list_nulls.h), which ends with an odd number, not with NULL. */
export function hlistNullsForEach(
  kernel: Kernel,
  head: bigint,
  limit: number = DEFAULT_LIMIT,
): Generator<bigint> {
  return walk(kernel, 'hlist_nulls', head, (node) => (node & 1n) !== 0n, limit);
}

/** Views of the structures in an hlist that are linked through their member `member`. Throws like {@link hlistForEach}. */
export function* hlistForEachEntry<F extends Fields>(
  kernel: Kernel,
  head: bigint,
  bound: Bound<F>,
  member: string,
  limit: number = DEFAULT_LIMIT,
): Generator<View<F>> {
  const offset = BigInt(bound.offsetOf(member));
  for (const node of hlistForEach(kernel, head, limit)) yield bound.at(node - offset);
}

/** The same for a `struct hlist_nulls_head`. */
export function* hlistNullsForEachEntry<F extends Fields>(
  kernel: Kernel,
  head: bigint,
  bound: Bound<F>,
  member: string,
  limit: number = DEFAULT_LIMIT,
): Generator<View<F>> {
  const offset = BigInt(bound.offsetOf(member));
  for (const node of hlistNullsForEach(kernel, head, limit)) yield bound.at(node - offset);
}
