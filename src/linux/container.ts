import { AddressError, ContainerError, hex } from '../vmcore/errors.ts';

/*
 * What the walks of all containers share, lists, trees and tables: no header of the kernel.
 */

/**
 * Elements that a walk follows before it says that the container does not end, unless its caller knows
 * better.
 */
export const DEFAULT_LIMIT = 1 << 20;

/**
 * Runs a read of a container's node; a node outside the dump becomes a ContainerError that names the
 * container.
 */
export function readNode<T>(container: string, head: bigint, node: bigint, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new ContainerError(
      container,
      head,
      `leads to ${hex(node)}, which cannot be read (${error.problem})`,
    );
  }
}

/** Throws a ContainerError once more than `limit` elements were met. */
export function checkLimit(container: string, head: bigint, count: number, limit: number): void {
  if (count > limit) throw new ContainerError(container, head, `does not end within ${limit} elements`);
}
