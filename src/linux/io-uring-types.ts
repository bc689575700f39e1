import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import {
  addressOf,
  array,
  optional,
  pointer,
  s32,
  s64,
  struct,
  u8,
  u16,
  u32,
  u64,
  type ViewOf,
} from '../vmcore/view.ts';
import { percpuCounterSum } from './percpu.ts';
import { percpuRefCount } from './percpu-refcount.ts';

/** `struct io_ring_ctx` (include/linux/io_uring_types.h): what io_uring_setup(2) makes. */
export const ioRingCtxStruct = struct('io_ring_ctx', {
  refs: addressOf('refs'),
  rings: pointer,
  /** `ringFlags` of src/system/io-uring.ts. */
  flags: u32,
  drain_next: u8,
  drain_active: u8,
  /** A request has asked for no completion: none can wait for all before it any more. */
  drain_disabled: u8,
  has_evfd: u8,
  iowq_limits_set: u8,
  uringLockOwner: s64.at('uring_lock.owner.counter'),
  completionLock: s32.at('completion_lock.rlock.raw_lock.val.counter'),
  /** 0 with IORING_SETUP_NO_SQARRAY. */
  sq_array: pointer,
  sq_sqes: pointer,
  cached_sq_head: u32,
  sq_entries: u32,
  cached_cq_tail: u32,
  cq_entries: u32,
  cq_extra: u32,
  nr_user_files: u32,
  nr_user_bufs: u32,
  /** Requests that are free to be used again. */
  freeRequests: pointer.at('submit_state.free_list.next'),
  // 6.1 has a second list of them
  lockedFreeRequests: optional(pointer.at('locked_free_list.first')),
  completed: pointer.at('submit_state.compl_reqs.first'),
  // 6.1: the first 64 groups of buffers
  io_bl: optional(pointer),
  bufferLists: pointer.at('io_bl_xa.xa_head'),
  personalities: pointer.at('personalities.xa_head'),
  cq_overflow_list: addressOf(),
  timeout_list: addressOf(),
  ltimeout_list: addressOf(),
  defer_list: addressOf(),
  iopoll: pointer.at('iopoll_list.first'),
  work: pointer.at('work_llist.first'),
  fallback: pointer.at('fallback_llist.first'),
  check_cq: u64,
  sq_data: pointer,
  isRestricted: u8.at('restrictions.registered'),
  submitter_task: pointer,
  n_ring_pages: u16,
  n_sqe_pages: u16,
  // 6.12: another clock for timeouts, and polling of network devices
  clockid: optional(s32),
  napi_enabled: optional(u8),
});

export type IoRingCtx = ViewOf<typeof ioRingCtxStruct>;

/** `struct io_rings`: the head of the memory that user space maps, and may write to. */
export const ioRingsStruct = struct('io_rings', {
  sqHead: u32.at('sq.head'),
  sqTail: u32.at('sq.tail'),
  cqHead: u32.at('cq.head'),
  cqTail: u32.at('cq.tail'),
  sq_ring_mask: u32,
  cq_ring_mask: u32,
  sq_ring_entries: u32,
  cq_ring_entries: u32,
  sq_dropped: u32,
  sq_flags: u32.at('sq_flags.counter'),
  cq_flags: u32,
  cq_overflow: u32,
  /** Where they are: user space is told so once, by io_uring_setup(2). */
  sqHeadAt: addressOf('sq.head'),
  sqTailAt: addressOf('sq.tail'),
  sqMaskAt: addressOf('sq_ring_mask'),
  sqEntriesAt: addressOf('sq_ring_entries'),
  sqFlagsAt: addressOf('sq_flags'),
  sqDroppedAt: addressOf('sq_dropped'),
  cqHeadAt: addressOf('cq.head'),
  cqTailAt: addressOf('cq.tail'),
  cqMaskAt: addressOf('cq_ring_mask'),
  cqEntriesAt: addressOf('cq_ring_entries'),
  cqOverflowAt: addressOf('cq_overflow'),
  cqFlagsAt: addressOf('cq_flags'),
  cqesAt: addressOf('cqes'),
});

export type IoRings = ViewOf<typeof ioRingsStruct>;

/** `struct io_uring_task`: what a thread has that has used a ring. */
export const ioUringTaskStruct = struct('io_uring_task', {
  cached_refs: s32,
  registered_rings: array(pointer),
  inflight: addressOf(),
  work: pointer.at('task_list.first'),
});

/** More requests than a ring keeps to use again. */
const MAX_REQUESTS = 1 << 22;

/** How many entries a chain of `struct io_wq_work_node` has. Throws a ContainerError if that are too many. */
function chainLength(kernel: Kernel, first: bigint, most: bigint): bigint {
  let length = 0n;
  for (let at = first; at !== 0n; at = kernel.memory.pointer(at)) {
    if (++length > most || length > MAX_REQUESTS)
      throw new ContainerError('io_wq_work_node', first, 'has more requests than there are');
  }
  return length;
}

/**
 * How many requests of a ring are in use: each that was allocated holds a reference to the ring, and is on a
 * list if it is free (__io_alloc_req_refill, io_uring/io_uring.c). Right only while nobody uses the ring.
 * Throws a ContainerError if more are free than were allocated.
 */
export function requestsInUse(kernel: Kernel, context: IoRingCtx): bigint {
  const own = 1n;
  const free = [context.freeRequests, context.lockedFreeRequests ?? 0n];
  return free.reduce(
    (others, at) => others - chainLength(kernel, at, others),
    percpuRefCount(kernel, context.refs) - own,
  );
}

/**
 * How many requests of a thread are in use, in all rings: it has counted some ahead (io_task_refs_refill).
 *
 * @param address `task_struct.io_uring`
 */
export function requestsOfTask(kernel: Kernel, address: bigint): number {
  const { cached_refs, inflight } = kernel.bind(ioUringTaskStruct).at(address);
  return percpuCounterSum(kernel, inflight) - cached_refs;
}
