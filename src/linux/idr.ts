import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, struct, u32 } from '../vmcore/view.ts';
import { DEFAULT_LIMIT } from './container.ts';
import { xaForEach, xaLoad } from './xarray.ts';

/** `struct idr` (include/linux/idr.h): numbers to pointers, in a radix tree. */
export const idr = struct('idr', { root: addressOf('idr_rt'), base: u32.at('idr_base') });

/**
 * Numbers and pointers of the `struct idr` at `address`, ascending. Throws a ContainerError if it is damaged.
 */
export function* idrForEach(
  kernel: Kernel,
  address: bigint,
  limit: number = DEFAULT_LIMIT,
): Generator<{ readonly id: number; readonly entry: bigint }> {
  const { root, base } = kernel.bind(idr).at(address);
  for (const { index, entry } of xaForEach(kernel, root, limit)) yield { id: index + base, entry };
}

/** The pointer of one number; 0n if it is not in use. Throws a ContainerError if the tree is damaged. */
export function idrFind(kernel: Kernel, address: bigint, id: number): bigint {
  const { root, base } = kernel.bind(idr).at(address);
  return id < base ? 0n : xaLoad(kernel, root, id - base);
}
