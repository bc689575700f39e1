import { AddressError, ChangingError, ContainerError, hex, isDamage } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';

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

/** How often something of a living kernel is read that does not agree with itself. */
const MOST_TRIES = 5;
/** What takes longer to read is as likely to change during the next try. */
const MOST_MILLISECONDS = 500;

/** Errors of which every try is over. */
const final = new WeakSet<Error>();

/** What is thrown after the last try: the same each time is wrong, something else each time is changing. */
function afterAll(error: AddressError | ContainerError, said: ReadonlySet<string>): Error {
  const last = said.size > 1 ? new ChangingError(error) : error;
  final.add(last);
  return last;
}

/**
 * What `read` returns. A living kernel changes what is read, and pages of it that were looked at before are
 * of another moment: what does not agree with itself is read again from memory, all of it, and some times at
 * most. A dead kernel is read once. Throws what `read` throws; if that is about something damaged, and not
 * the same each time, a ChangingError.
 *
 * @param read does nothing but read, since it may be called again; views from outside of it are old
 */
export function settled<T>(kernel: Kernel, read: () => T): T {
  if (!kernel.isAlive) return read();
  const said = new Set<string>();
  const start = performance.now();
  for (let tries = 1; ; tries++) {
    const note = kernel.physical.noteReads?.();
    try {
      return read();
    } catch (error) {
      if (!isDamage(error) || final.has(error)) throw error;
      said.add(error.message);
      const isLast = tries === MOST_TRIES || performance.now() - start > MOST_MILLISECONDS;
      if (isLast) throw afterAll(error, said);
      note?.forget();
      kernel.memory.forgetTranslations();
    } finally {
      note?.end();
    }
  }
}

/**
 * The elements of a walk. Those of a living kernel are all found, as {@link settled} reads, before the first
 * is given out; as of a dead kernel, those of the last try come before the error.
 */
export function* settledWalk<T>(kernel: Kernel, walk: () => Iterable<T>): Generator<T> {
  if (!kernel.isAlive) {
    yield* walk();
    return;
  }
  let found: T[] = [];
  let failed: { readonly error: unknown } | undefined;
  try {
    settled(kernel, () => {
      found = [];
      for (const one of walk()) found.push(one);
    });
  } catch (error) {
    failed = { error };
  }
  yield* found;
  if (failed !== undefined) throw failed.error;
}
