import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, s32, s64, struct, u32, ulongNumber, type ViewOf } from '../vmcore/view.ts';
import { perCpuPtr } from './percpu.ts';

/** `struct kioctx_table` (fs/aio.c): the contexts of an address space, by their numbers. */
export const kioctxTable = struct('kioctx_table', { nr: u32, table: addressOf('table') });

/** `struct kioctx`: what io_setup(2) makes. */
export const kioctx = struct('kioctx', {
  reqs: addressOf('reqs'),
  /** Its name for user space: where its ring is. */
  user_id: ulongNumber,
  cpu: pointer,
  nr_events: u32,
  mmap_base: ulongNumber,
  mmap_size: ulongNumber,
  reqs_available: s32.at('reqs_available.counter'),
  active_reqs: addressOf('active_reqs'),
  ringLockOwner: s64.at('ring_lock.owner.counter'),
  tail: u32,
  completed_events: u32,
  completionLock: s32.at('completion_lock.rlock.raw_lock.val.counter'),
  aio_ring_file: pointer,
  id: u32,
});

export type Kioctx = ViewOf<typeof kioctx>;

/** `struct kioctx_cpu`: places in the ring that a CPU has taken for itself. */
export const kioctxCpu = struct('kioctx_cpu', { reqs_available: u32 });

/** `struct aio_ring`: the head of the ring, which user space maps and may write to. */
export const aioRing = struct('aio_ring', {
  id: u32,
  nr: u32,
  head: u32,
  tail: u32,
  magic: u32,
  compat_features: u32,
  incompat_features: u32,
  header_length: u32,
});

export type AioRing = ViewOf<typeof aioRing>;

/** `magic` of a ring. */
export const AIO_RING_MAGIC = 0xa10a10a1;

/** More contexts than an address space has: each has one request at least, of fs.aio-max-nr. */
const MAX_CONTEXTS = 1 << 20;

/**
 * The AIO contexts of an address space.
 *
 * @param table `mm_struct.ioctx_table`, which may be 0
 */
export function aioContexts(kernel: Kernel, table: bigint): Kioctx[] {
  if (table === 0n) return [];
  const { nr, table: first } = kernel.bind(kioctxTable).at(table);
  if (nr > MAX_CONTEXTS) throw new ContainerError('kioctx_table', table, `has room for ${nr} contexts`);
  return Array.from({ length: nr }, (_, i) => kernel.memory.pointer(first + BigInt(8 * i)))
    .filter((address) => address !== 0n)
    .map((address) => kernel.bind(kioctx).at(address));
}

/** How many requests the ring of a context has room for yet, on all CPUs. */
export function requestsAvailable(kernel: Kernel, { cpu: counters, reqs_available }: Kioctx): number {
  const Counter = kernel.bind(kioctxCpu);
  return kernel.possibleCpus.reduce(
    (sum, cpu) => sum + Counter.at(perCpuPtr(kernel, counters, cpu)).reqs_available,
    reqs_available,
  );
}
