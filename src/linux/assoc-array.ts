import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { array, pointer, struct, ulongNumber } from '../vmcore/view.ts';
import { settled } from './container.ts';

/** `struct assoc_array` (include/linux/assoc_array.h): pointers by what they point to. */
export const assocArray = struct('assoc_array', {
  root: pointer,
  leaves: ulongNumber.at('nr_leaves_on_tree'),
});
/** `struct assoc_array_node` (include/linux/assoc_array_priv.h). */
export const assocArrayNode = struct('assoc_array_node', { slots: array(pointer) });
/** `struct assoc_array_shortcut`. */
export const assocArrayShortcut = struct('assoc_array_shortcut', { next_node: pointer });

/**
 * Low bits of a pointer in the array (assoc_array_priv.h): node or shortcut, and which; of a leaf: a keyring.
 */
const META = 1n;
const SUBTYPE = 2n;

const MAX_LEAVES = 1 << 16;

/**
 * Leaves of the `struct assoc_array` at `address`: pointers, with a flag in their low bits left out. Throws a
 * ContainerError if it holds more than it says.
 */
export function assocArrayLeaves(kernel: Kernel, address: bigint): bigint[] {
  return settled(kernel, () => readLeaves(kernel, address));
}

function readLeaves(kernel: Kernel, address: bigint): bigint[] {
  const { root, leaves } = kernel.bind(assocArray).at(address);
  if (leaves > MAX_LEAVES) throw new ContainerError('assoc_array', address, `has ${leaves} leaves`);
  const found: bigint[] = [];
  const queue = [root];
  for (let steps = 0; queue.length > 0; steps++) {
    if (steps > MAX_LEAVES * 4 || found.length > leaves)
      throw new ContainerError('assoc_array', address, `has more than its ${leaves} leaves`);
    const at = queue.pop() ?? 0n;
    const target = at & ~(META | SUBTYPE);
    if (target === 0n) continue;
    if ((at & META) === 0n) found.push(target);
    else if ((at & SUBTYPE) !== 0n) queue.push(kernel.bind(assocArrayShortcut).at(target).next_node);
    else queue.push(...kernel.bind(assocArrayNode).at(target).slots);
  }
  return found;
}
