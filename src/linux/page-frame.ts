import { PAGE_SIZE } from '../system/page.ts';
import { AddressError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

/**
 * The physical address of a `struct page`'s frame, all `pages` frames from there on being in the dump. Throws an AddressError that
 * names `what` if the pointer is not into vmemmap or a frame is missing.
 */
export function pageFrames(kernel: Kernel, page: bigint, pages: number, what: string): number {
  const physical = kernel.pageToPfn(page) * PAGE_SIZE;
  requirePhysical(kernel, physical, pages * PAGE_SIZE, what);
  return physical;
}

/** Throws an AddressError that names `what` unless all bytes are in the dump. */
export function requirePhysical(kernel: Kernel, physical: number, length: number, what: string): void {
  if (!kernel.physical.has(physical, length)) {
    throw new AddressError(physical, `and ${length} bytes from there on are not all in the dump`, what);
  }
}
