import type { Kernel } from '../../src/vmcore/kernel.ts';
import { openPatched, type Release, word } from '../vmcore/fixtures.ts';

/** Runs a walk to its end. */
export function count(walk: Iterable<unknown>): number {
  let total = 0;
  for (const _ of walk) total++;
  return total;
}

/** Gives kernels of which 8 bytes at a kernel address are others. */
export function wordPatcher(release: Release, kernel: Kernel): (address: bigint, value: bigint) => Kernel {
  return (address, value) =>
    openPatched(release, [{ physical: kernel.memory.translate(address), bytes: word(value) }]);
}
