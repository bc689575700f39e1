import { ContainerError, hex, VmcoreError } from '../vmcore/errors.ts';
import type { Fields } from '../vmcore/field.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { type Bound, pointer, struct, type View } from '../vmcore/view.ts';
import { checkLimit, DEFAULT_LIMIT, readNode, settledWalk } from './container.ts';

/** `struct list_head` (include/linux/types.h): circular, doubly linked. */
export const listHead = struct('list_head', { next: pointer, prev: pointer });

/** Whether the list at `head` (a `struct list_head`) has no elements. */
export function listEmpty(kernel: Kernel, head: bigint): boolean {
  return kernel.memory.pointer(head) === head;
}

/**
 * Addresses of the `struct list_head` in each element of the list at `head`, in order. Each back pointer is
 * checked; one may also point a step further back, as while another CPU adds or removes an element. Throws a
 * ContainerError for a list that is damaged or longer than `limit`.
 */
export function listForEach(kernel: Kernel, head: bigint, limit: number = DEFAULT_LIMIT): Generator<bigint> {
  return settledWalk(kernel, () => listWalk(kernel, head, limit));
}

function* listWalk(kernel: Kernel, head: bigint, limit: number): Generator<bigint> {
  const bound = kernel.bind(listHead);
  let before = head;
  let previous = head;
  let node = readNode('list', head, head, () => bound.at(head).next);
  for (let count = 1; node !== head; count++) {
    checkLimit('list', head, count, limit);
    const at = node;
    const { next, prev } = readNode('list', head, at, () => {
      const view = bound.at(at);
      return { next: view.next, prev: view.prev };
    });
    if (prev !== previous && prev !== before) {
      throw new ContainerError(
        'list',
        head,
        `is damaged: ${hex(at)} follows ${hex(previous)}, but points back to ${hex(prev)}`,
      );
    }
    yield at;
    before = previous;
    previous = at;
    node = next;
  }
}

/**
 * Views of the structures in the list at `head` that are linked through their member `member` (a declared
 * member or a path). Throws like {@link listForEach}.
 */
export function* listForEachEntry<F extends Fields>(
  kernel: Kernel,
  head: bigint,
  bound: Bound<F>,
  member: string,
  limit: number = DEFAULT_LIMIT,
): Generator<View<F>> {
  const offset = BigInt(bound.offsetOf(member));
  for (const node of listForEach(kernel, head, limit)) yield bound.at(node - offset);
}

/** What could be read of a list. */
export interface ListRead {
  /**
   * Addresses of the `struct list_head` in the elements; those of a damaged list are in order, with a gap.
   */
  readonly nodes: readonly bigint[];
  /** What is wrong with the list; undefined if it was read whole. */
  readonly damage: string | undefined;
}

/**
 * The list at `head`, or, if it is damaged, what is left of it from both of its ends: every element is
 * confirmed by the one that it was reached from. Nothing is thrown for a damaged list.
 */
export function listRead(kernel: Kernel, head: bigint, limit: number = DEFAULT_LIMIT): ListRead {
  const nodes: bigint[] = [];
  try {
    for (const node of listForEach(kernel, head, limit)) nodes.push(node);
    return { nodes, damage: undefined };
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    const rest = backwards(kernel, head, new Set(nodes), limit);
    return { nodes: [...nodes, ...rest.toReversed()], damage: error.message };
  }
}

/** Elements from the list's end up to where it is damaged, or to one that is known. */
function backwards(kernel: Kernel, head: bigint, known: Set<bigint>, limit: number): bigint[] {
  const bound = kernel.bind(listHead);
  const nodes: bigint[] = [];
  try {
    let following = head;
    let node = bound.at(head).prev;
    while (node !== head && !known.has(node) && nodes.length < limit) {
      const { next, prev } = bound.at(node);
      if (next !== following) break;
      known.add(node);
      nodes.push(node);
      following = node;
      node = prev;
    }
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
  }
  return nodes;
}

/**
 * Calls `visit` with a view of each structure in a list, read as {@link listRead} does, without keeping any
 * of them: for lists of any length. `visit` must not throw a VmcoreError. @returns what is wrong with the
 * list
 */
export function listVisit<F extends Fields>(
  kernel: Kernel,
  head: bigint,
  bound: Bound<F>,
  member: string,
  limit: number,
  visit: (view: View<F>) => void,
): string | undefined {
  const offset = BigInt(bound.offsetOf(member));
  let visited = 0;
  try {
    for (const node of listForEach(kernel, head, limit)) {
      visited++;
      visit(bound.at(node - offset));
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    const { nodes, damage } = listRead(kernel, head, limit);
    for (const node of nodes.slice(visited)) visit(bound.at(node - offset));
    return damage;
  }
}

/** Views of the structures in a list, read as {@link listRead} does. */
export function listReadEntries<F extends Fields>(
  kernel: Kernel,
  head: bigint,
  bound: Bound<F>,
  member: string,
  limit: number = DEFAULT_LIMIT,
): { readonly entries: readonly View<F>[]; readonly damage: string | undefined } {
  const offset = BigInt(bound.offsetOf(member));
  const { nodes, damage } = listRead(kernel, head, limit);
  return { entries: nodes.map((node) => bound.at(node - offset)), damage };
}

/**
 * `struct hlist_node` (include/linux/types.h): `next`, then `pprev`, the address of the pointer to this node.
 */
const PPREV = 8n;

function* hlistWalk(
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
 * Addresses of the `struct hlist_node` in each element of the list at `head` (a `struct hlist_head`), in
 * order. Back pointers are checked as in a list. Throws a ContainerError for a list that is damaged or longer
 * than `limit`.
 */
export function hlistForEach(kernel: Kernel, head: bigint, limit: number = DEFAULT_LIMIT): Generator<bigint> {
  return settledWalk(kernel, () => hlistWalk(kernel, 'hlist', head, (node) => node === 0n, limit));
}

/**
 * Views of the structures in an hlist that are linked through their member `member`. Throws like {@link
 * hlistForEach}.
 */
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
