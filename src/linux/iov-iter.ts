import { readable } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { pointer, struct, u64 } from '../vmcore/view.ts';
import { taskPtRegs } from './arch/x86/ptrace.ts';
import { bioVecStruct } from './bvec.ts';
import type { Task } from './sched.ts';

/**
 * `struct iov_iter` (include/linux/uio.h): the members that tell one user buffer (ITER_UBUF, since 6.0) and
 * several (ITER_IOVEC) from others. 6.4 renamed `iov`.
 */
export const iovIterStruct = struct('iov_iter', {
  iov_offset: u64,
  count: u64,
  ubuf: u64,
  iov: pointer.at('iov', '__iov'),
  nr_segs: u64,
});

/** Kernel stacks are 16 KiB. */
const MAX_STACK = 16384n;
const IOVEC_BYTES = 16;

/** A buffer of a program that a call reads from or fills. */
export interface UserBuffer {
  readonly address: bigint;
  readonly length: bigint;
}

/** Finds iov_iters of a call in a copy of a kernel stack. */
class Finder {
  readonly #kernel: Kernel;
  readonly #stack: Buffer;
  readonly #buffers: readonly UserBuffer[];
  readonly #total: bigint;

  constructor(kernel: Kernel, stack: Buffer, buffers: readonly UserBuffer[]) {
    this.#kernel = kernel;
    this.#stack = stack;
    this.#buffers = buffers;
    this.#total = buffers.reduce((sum, { length }) => sum + length, 0n);
  }

  /** Bytes that each iov_iter of the call says are done, the innermost function's first. */
  find(direction: 'read' | 'write'): bigint[] {
    const kernel = this.#kernel;
    const iter = kernel.bind(iovIterStruct);
    const [one, several] = [kernel.enumerator('ITER_UBUF'), kernel.enumerator('ITER_IOVEC')];
    const [kindAt, sourceAt] = [iter.offsetOf('iter_type'), iter.offsetOf('data_source')];
    const found: bigint[] = [];
    for (let at = 0; at + iter.size <= this.#stack.length; at += 8) {
      if ((this.#stack[at + sourceAt] === 1) !== (direction === 'write')) continue;
      const kind = this.#stack[at + kindAt];
      const done = kind === one ? this.#ofOne(at) : kind === several ? this.#ofSeveral(at) : undefined;
      if (done !== undefined) found.push(done);
    }
    return found;
  }

  #member(at: number, name: 'iov_offset' | 'count' | 'ubuf' | 'iov' | 'nr_segs'): bigint {
    return this.#stack.readBigUInt64LE(at + this.#kernel.bind(iovIterStruct).offsetOf(name));
  }

  #ofOne(at: number): bigint | undefined {
    const [only, another] = this.#buffers;
    if (only === undefined || another !== undefined) return undefined;
    if (this.#member(at, 'ubuf') !== only.address) return undefined;
    const done = this.#member(at, 'iov_offset');
    return done + this.#member(at, 'count') === only.length ? done : undefined;
  }

  /** The kernel's copy of the list of buffers is recognised by all that is in it. */
  #ofSeveral(at: number): bigint | undefined {
    const count = this.#buffers.length;
    const left = this.#member(at, 'nr_segs');
    const [rest, offset] = [this.#member(at, 'count'), this.#member(at, 'iov_offset')];
    if (left > BigInt(count) || rest > this.#total) return undefined;
    const passed = count - Number(left);
    const list = this.#member(at, 'iov') - BigInt(passed * IOVEC_BYTES);
    const bytes = readable(() => this.#kernel.memory.read(list, count * IOVEC_BYTES));
    if (bytes === undefined) return undefined;
    const isSame = this.#buffers.every(
      ({ address, length }, i) =>
        bytes.readBigUInt64LE(i * IOVEC_BYTES) === address &&
        bytes.readBigUInt64LE(i * IOVEC_BYTES + 8) === length,
    );
    const ahead = this.#buffers.slice(passed).reduce((sum, { length }) => sum + length, 0n);
    return isSame && ahead - offset === rest ? this.#total - rest : undefined;
  }
}

/** Where on a kernel stack a call's counts are. */
export interface IterPlace {
  /** From where on the stack is the call's: what is below is left from earlier ones. */
  readonly low: bigint;
  /** The call counts in a copy of its iov_iter, and copies it back at its end. */
  readonly isCopied: boolean;
}

/**
 * How many bytes of a read or write have been moved: the kernel keeps count in a `struct iov_iter` on the
 * task's kernel stack, recognised by the buffers' addresses together with the sum of what is done and what is
 * left. Returns undefined if there is no such structure, or if several disagree. Of a copy and what it is a
 * copy of, the copy is the inner one, and both have to be there: while the kernel moves the copy on, its
 * members do not add up, and the other one alone would say that nothing is done.
 */
export function transferProgress(
  kernel: Kernel,
  task: Pick<Task, 'stack'>,
  direction: 'read' | 'write',
  buffers: readonly UserBuffer[],
  { low, isCopied }: IterPlace,
): number | undefined {
  if (!kernel.hasMember('iov_iter', 'ubuf') || buffers.length === 0) return undefined;
  const high = taskPtRegs(kernel, task.stack).address;
  if (low >= high || high - low > MAX_STACK) return undefined;
  const stack = kernel.memory.read(low, Number(high - low));
  const found = new Finder(kernel, stack, buffers).find(direction);
  const [inner, outer] = found;
  if (inner === undefined) return undefined;
  if (!isCopied) return found.every((done) => done === inner) ? Number(inner) : undefined;
  const isPair = found.length === 2 && (outer === 0n || outer === inner);
  return isPair ? Number(inner) : undefined;
}

/** A part of a kernel stack: from one address up to another. */
export interface StackPart {
  readonly low: bigint;
  readonly high: bigint;
}

/** A part of a page that a call reads from (`struct bio_vec`). */
export interface PagePart {
  readonly page: bigint;
  readonly offset: number;
  readonly length: number;
}

/**
 * How many bytes a call in the kernel has taken of pages that its caller has listed on the stack (ITER_BVEC).
 * Its iov_iter is recognised by the list, by what is left of it, and by the sum of what is left.
 *
 * @param part the caller's, which its variables are in
 * @returns undefined if there is no such structure, or more than one
 */
export function takenOfPages(
  kernel: Kernel,
  part: StackPart,
  parts: readonly PagePart[],
): number | undefined {
  const { low, high } = part;
  if (low >= high || high - low > MAX_STACK) return undefined;
  const stack = kernel.memory.read(low, Number(high - low));
  const iter = kernel.bind(iovIterStruct);
  const kind = kernel.enumerator('ITER_BVEC');
  const [kindAt, sourceAt] = [iter.offsetOf('iter_type'), iter.offsetOf('data_source')];
  const found: number[] = [];
  for (let at = 0; at + iter.size <= stack.length; at += 8) {
    if (stack[at + kindAt] !== kind || stack[at + sourceAt] !== 1) continue;
    const { iov, nr_segs, iov_offset, count } = iter.at(low + BigInt(at));
    const list = Number(iov - low);
    const taken =
      nr_segs <= BigInt(parts.length) && list >= 0 && list < stack.length
        ? takenOf(kernel, stack.subarray(list), parts, Number(nr_segs), Number(iov_offset))
        : undefined;
    if (taken !== undefined && taken + Number(count) === sumOf(parts)) found.push(taken);
  }
  const [taken, another] = found;
  return another === undefined ? taken : undefined;
}

const sumOf = (parts: readonly PagePart[]): number => parts.reduce((sum, { length }) => sum + length, 0);

/** @param list from the first entry on that is left of it */
function takenOf(
  kernel: Kernel,
  list: Buffer,
  parts: readonly PagePart[],
  left: number,
  offset: number,
): number | undefined {
  const entry = kernel.bind(bioVecStruct);
  if (left * entry.size > list.length) return undefined;
  const passed = parts.slice(0, parts.length - left);
  const isSame = parts.slice(passed.length).every((part, i) => {
    const at = i * entry.size;
    return (
      list.readBigUInt64LE(at + entry.offsetOf('page')) === part.page &&
      list.readUInt32LE(at + entry.offsetOf('length')) === part.length &&
      list.readUInt32LE(at + entry.offsetOf('offset')) === part.offset
    );
  });
  const within = parts[passed.length]?.length ?? 0;
  return isSame && offset <= within ? sumOf(passed) + offset : undefined;
}
