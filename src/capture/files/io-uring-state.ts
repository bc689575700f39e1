import type { IoRingCtx, IoRings } from '../../linux/io-uring-types.ts';
import type { Moment } from '../../model/verdict.ts';
import { ringFlags } from '../../system/io-uring.ts';

/** What of a ring tells whether it can be had again. */
export interface RingState {
  readonly context: Omit<
    IoRingCtx,
    | ('address' | 'refs' | 'rings' | 'sq_array' | 'sq_sqes' | 'submitter_task' | 'freeRequests')
    | ('lockedFreeRequests' | 'cq_overflow_list' | 'timeout_list' | 'ltimeout_list' | 'defer_list')
  >;
  readonly rings: Omit<IoRings, 'address' | 'cq_flags' | `${string}At`>;
  /** Requests that are not free; see `requestsInUse`. */
  readonly inUse: bigint;
  /** A request waits for a time or for others, or a completion for its place. */
  readonly hasWaiting: boolean;
}

/** Why a ring cannot be had again, going on after its name. */
export interface RingProblem {
  readonly why: string;
  readonly moment?: Moment;
  /** The counts that disagree: no sound ring has them, unless it was changed while it was read. */
  readonly unsound?: string;
}

/** Those that io_uring_setup(2) can be given again. */
const KEPT =
  ringFlags.cqSize |
  ringFlags.clamp |
  ringFlags.attachWq |
  ringFlags.submitAll |
  ringFlags.coopTaskrun |
  ringFlags.taskrunFlag |
  ringFlags.sqe128 |
  ringFlags.cqe32 |
  ringFlags.singleIssuer |
  ringFlags.deferTaskrun |
  ringFlags.noSqArray;

/** Others by their names. */
const named: readonly (readonly [flag: number, why: string])[] = [
  [ringFlags.sqpoll, 'that a thread of the kernel polls (IORING_SETUP_SQPOLL)'],
  [ringFlags.iopoll, 'that polls devices (IORING_SETUP_IOPOLL)'],
  [ringFlags.disabled, 'that is not enabled yet (IORING_SETUP_R_DISABLED)'],
  [ringFlags.noMmap, 'in memory of the program (IORING_SETUP_NO_MMAP)'],
  [ringFlags.registeredFdOnly, 'without a descriptor (IORING_SETUP_REGISTERED_FD_ONLY)'],
];

/** CLOCK_MONOTONIC, which 6.12 can be told to leave. */
const USUAL_CLOCK = 1;

function madeWith({ flags }: RingState['context']): string | undefined {
  const known = named.find(([flag]) => (flags & flag) !== 0);
  if (known !== undefined) return known[1];
  const others = (flags & ~KEPT) >>> 0;
  return others === 0 ? undefined : `that was made with flags 0x${others.toString(16)}`;
}

function registered(context: RingState['context']): string | undefined {
  const { io_bl = 0n, clockid = USUAL_CLOCK, napi_enabled = 0 } = context;
  if (context.nr_user_files > 0) return 'with registered files';
  if (context.nr_user_bufs > 0) return 'with registered buffers';
  if (context.has_evfd !== 0) return 'with a registered eventfd';
  if (context.bufferLists !== 0n || io_bl !== 0n) return 'with provided buffers';
  if (context.personalities !== 0n) return 'with registered personalities';
  if (context.isRestricted !== 0) return 'with restrictions';
  if (context.iowq_limits_set !== 0) return 'with limits on its workers';
  if (clockid !== USUAL_CLOCK) return 'with a clock of its own';
  return napi_enabled === 0 ? undefined : 'that polls network devices';
}

/** Requests leave several traces: all of them have to say that there is none. */
function isBusy({ context, inUse, hasWaiting }: RingState): boolean {
  const lists = [context.completed, context.iopoll, context.work, context.fallback];
  return inUse !== 0n || hasWaiting || lists.some((first) => first !== 0n) || context.check_cq !== 0n;
}

function isPowerOfTwo(count: number): boolean {
  return count > 0 && (count & (count - 1)) === 0;
}

/** How far `to` is ahead of `from`: both count modulo 2^32. */
export function ahead(to: number, from: number): number {
  return (to - from) >>> 0;
}

/** What the program can write to, and what the kernel keeps for itself, agree. */
function isSound({ context, rings }: RingState): boolean {
  const { cached_sq_head, cached_cq_tail, sq_entries, cq_entries } = context;
  const hasSizes =
    isPowerOfTwo(sq_entries) &&
    isPowerOfTwo(cq_entries) &&
    sq_entries <= cq_entries &&
    rings.sq_ring_entries === sq_entries &&
    rings.cq_ring_entries === cq_entries &&
    rings.sq_ring_mask === sq_entries - 1 &&
    rings.cq_ring_mask === cq_entries - 1;
  return (
    hasSizes &&
    rings.sqHead === cached_sq_head &&
    rings.cqTail === cached_cq_tail &&
    ahead(rings.sqTail, cached_sq_head) <= sq_entries &&
    ahead(cached_cq_tail, rings.cqHead) <= cq_entries
  );
}

function countsOf({ context, rings }: RingState): string {
  const { sqHead, sqTail, cqHead, cqTail } = rings;
  const { cached_sq_head, cached_cq_tail } = context;
  return `it has counted ${cached_sq_head} and ${cached_cq_tail}, its rings ${sqHead} to ${sqTail} and ${cqHead} to ${cqTail}`;
}

/**
 * Seconds for a request that does nothing, and for a system call that makes some of them; measured, with
 * room.
 */
const REQUEST_SECONDS = 100e-9;
const CALL_SECONDS = 20e-6;
/** The same if only one thread may make them, and is made to: two stops of a tracee. */
const TRACED_CALL_SECONDS = 4e-3;
/** A process waits so long for its rings at most, and so do all of its group. */
const LONGEST_SECONDS = 60;
/**
 * All groups of a capture together: a program that restores, or one that does so in a sandbox, is ended when
 * its minutes are over, and whatever it holds with it (`time-limit-minutes`, SANDBOX_MINUTES).
 */
const LONGEST_SECONDS_OF_ALL = 300;
/** Of the minutes that there are for all, no more is for rings: the rest takes its time, too. */
const SHARE_OF_ALL = 0.5;
/** How many areas a process may have (vm.max_map_count, if nobody has set it). */
const MOST_AREAS = 65_530;
/** To keep a gap between areas from being chosen for a ring: mmap(2), and munmap(2). */
const CALLS_FOR_GAP = 2;

/** How long it takes to bring a new ring to where an old one was. */
export function secondsToCount({ flags, sq_entries, cached_sq_head }: RingState['context']): number {
  const call = (flags & ringFlags.singleIssuer) === 0 ? CALL_SECONDS : TRACED_CALL_SECONDS;
  return cached_sq_head * REQUEST_SECONDS + (cached_sq_head / sq_entries) * call;
}

/**
 * What the kernel has counted of a ring can be had again by as many requests that do nothing, of which some
 * ask for no completion. To ask for none takes from the ring that a request can wait for all before it
 * (IOSQE_IO_DRAIN): only where that was so already.
 */
function countProblem({ context, rings }: RingState): string | undefined {
  const { cached_sq_head, cached_cq_tail } = context;
  if (rings.sq_dropped !== 0) return 'that has dropped requests';
  if (rings.cq_overflow !== 0) return 'that has lost completions';
  const isUneven = cached_sq_head !== cached_cq_tail || context.cq_extra !== 0;
  if (cached_cq_tail > cached_sq_head || (isUneven && context.drain_disabled === 0))
    return 'with other completions than one for each request';
  // None has to ask for no completion then, and a new ring could wait for all requests again.
  if (cached_sq_head === cached_cq_tail && context.drain_disabled !== 0)
    return 'whose requests asked for no completion and had one';
  const seconds = secondsToCount(context);
  if (seconds <= LONGEST_SECONDS) return undefined;
  return `that has taken ${cached_sq_head} requests: counting there again would take ${Math.ceil(seconds)} s`;
}

/** Why a ring cannot be had again; undefined if it can. */
export function ringProblem(state: RingState): RingProblem | undefined {
  const { context, rings } = state;
  const lasting = madeWith(context) ?? registered(context);
  if (lasting !== undefined) return { why: lasting };
  if (context.uringLockOwner !== 0n || context.completionLock !== 0)
    return { why: 'that was being changed', moment: 'passing' };
  if (isBusy(state)) return { why: 'with requests in flight', moment: 'passing' };
  if (context.drain_active !== 0 || context.drain_next !== 0)
    return { why: 'whose next request waits for all before it', moment: 'passing' };
  if (rings.sq_flags !== 0) return { why: 'that has something to do', moment: 'passing' };
  if (!isSound(state)) return { why: 'whose rings are damaged', unsound: countsOf(state) };
  const counted = countProblem(state);
  return counted === undefined ? undefined : { why: counted };
}

interface Span {
  readonly start: number;
  readonly end: number;
}

function gapsBetween(areas: readonly Span[]): number {
  return areas.filter(({ start }, i) => i > 0 && start > (areas[i - 1]?.end ?? 0)).length;
}

/**
 * Seconds in which a process has its rings again; see `togetherProblem`. Each gap between areas is closed
 * while they are mapped.
 */
export function secondsTogether(seconds: readonly number[], areas: readonly Span[]): number {
  if (seconds.length === 0) return 0;
  const ofGaps = gapsBetween(areas) * CALLS_FOR_GAP * TRACED_CALL_SECONDS;
  return seconds.reduce((all, one) => all + one, 0) + ofGaps;
}

/**
 * Why rings of a process cannot be had again all together; undefined if they can.
 *
 * @param seconds how long it takes to count in each; see `secondsToCount`
 * @param areas of the process, by rising addresses
 */
export function togetherProblem(seconds: readonly number[], areas: readonly Span[]): string | undefined {
  const gaps = gapsBetween(areas);
  // One before all areas, and one behind them.
  if (areas.length + gaps + 2 > MOST_AREAS) return `has io_urings among too many areas (${areas.length})`;
  const sum = secondsTogether(seconds, areas);
  if (sum <= LONGEST_SECONDS) return undefined;
  const rings = seconds.length === 1 ? 'an io_uring that takes' : `${seconds.length} io_urings that take`;
  return `has ${rings} ${Math.ceil(sum)} s to make again, with ${gaps} gaps between areas`;
}

/**
 * The time for the rings of all groups of a capture: one process makes its own after the other. Who asks
 * first has it.
 */
export class RingBudget {
  readonly #seconds: number;
  #taken = 0;

  /** @param minutes for everything that is done after the panic; undefined if they have no limit */
  constructor(minutes: number | undefined) {
    const most = minutes === undefined ? Number.POSITIVE_INFINITY : minutes * 60 * SHARE_OF_ALL;
    this.#seconds = Math.min(LONGEST_SECONDS_OF_ALL, most);
  }

  /**
   * Why a group cannot have its rings again, or undefined: then the time is taken.
   *
   * @param seconds of all its processes; see `secondsTogether`
   */
  take(seconds: number): string | undefined {
    if (seconds === 0) return undefined;
    const takes = `is in a group whose io_urings take ${Math.ceil(seconds)} s to make again`;
    if (seconds > LONGEST_SECONDS) return `${takes}, one process after the other`;
    if (seconds > this.#seconds)
      return `${takes}, where time-limit-minutes leaves ${Math.floor(this.#seconds)} s for all`;
    if (this.#taken + seconds > this.#seconds)
      return `${takes}, after ${Math.ceil(this.#taken)} s for those of other groups`;
    this.#taken += seconds;
    return undefined;
  }
}
