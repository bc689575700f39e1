import { settled } from '../../linux/container.ts';
import { openFlags } from '../../linux/file.ts';
import type { File } from '../../linux/fs.ts';
import {
  type IoRingCtx,
  type IoRings,
  ioRingCtxStruct,
  ioRingsStruct,
  requestsInUse,
} from '../../linux/io-uring-types.ts';
import { listEmpty } from '../../linux/list.ts';
import { type Task, taskAt } from '../../linux/sched.ts';
import type { IoUring, RingOffsets, RingPart } from '../../model/io-uring.ts';
import type { Vma } from '../../model/memory.ts';
import { joinRuns, listedRuns, type PageRuns } from '../../model/page-runs.ts';
import { PROT_READ, PROT_WRITE } from '../../system/abi.ts';
import { CQE_BYTES, ringFlags, ringOffset, SQE_BYTES } from '../../system/io-uring.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { ChangingError, ContainerError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { MappedFile, MappingUse } from '../file-capture.ts';
import type { CaptureContext } from './context.ts';
import { showHolder } from './holders/holders.ts';
import {
  ahead,
  type RingProblem,
  type RingState,
  ringProblem,
  secondsToCount,
  secondsTogether,
  togetherProblem,
} from './io-uring-state.ts';
import { FileRefusal } from './refusal.ts';

const NAME = 'has an io_uring';
/** Flags of its file: what anon_inode_getfile is asked for. */
const FILE_FLAGS = openFlags.readWrite;
/** What an area is, by its place in the file. */
const parts: ReadonlyMap<number, RingPart> = new Map([
  [ringOffset.requests, 'rings'],
  [ringOffset.completions, 'rings'],
  [ringOffset.entries, 'entries'],
]);
/** Bytes of an index of a request. */
const INDEX_BYTES = 4;

/** What a capture knows of a ring besides the model. */
interface FoundRing {
  readonly ring: IoUring;
  readonly references: number;
  readonly seconds: number;
}

class Rings {
  /** By the address of the struct file. */
  readonly found = new Map<bigint, FoundRing>();
}

function stateOf(kernel: Kernel, context: IoRingCtx, rings: IoRings): RingState {
  const lists = [context.cq_overflow_list, context.timeout_list, context.ltimeout_list, context.defer_list];
  return {
    context,
    rings,
    inUse: requestsInUse(kernel, context),
    hasWaiting: lists.some((list) => !listEmpty(kernel, list)),
  };
}

/**
 * What the kernel keeps of a ring and what the program sees of it, of one moment. A living kernel may change
 * it while it is read. Throws a FileRefusal if it cannot be had again.
 */
function readRing(kernel: Kernel, address: bigint): { ctx: IoRingCtx; rings: IoRings } {
  let problem: RingProblem | undefined;
  const read = () => {
    problem = undefined;
    const ctx = kernel.bind(ioRingCtxStruct).at(address);
    const rings = kernel.bind(ioRingsStruct).at(ctx.rings);
    problem = ringProblem(stateOf(kernel, ctx, rings));
    if (problem?.unsound !== undefined) throw new ContainerError('io_ring_ctx', address, problem.unsound);
    if (problem !== undefined) throw new FileRefusal(`${NAME} ${problem.why}`, problem.moment);
    return { ctx, rings };
  };
  try {
    return settled(kernel, read);
  } catch (error) {
    if (!(error instanceof ContainerError) || problem?.unsound === undefined) throw error;
    throw error instanceof ChangingError
      ? new FileRefusal(`${NAME} that changes while it is read`, 'passing')
      : new FileRefusal(`${NAME} ${problem.why}`);
  }
}

/** Whole pages of the kernel that begin at an address of its own. */
function pagesAt(kernel: Kernel, address: bigint, pages: number): PageRuns {
  const each = Array.from({ length: pages }, (_, i) => ({
    address: i * PAGE_SIZE,
    pages: 1,
    physical: kernel.memory.translate(address + BigInt(i * PAGE_SIZE)),
  }));
  return listedRuns([...joinRuns(each)]);
}

function offsetsOf(rings: IoRings, sqArray: bigint): RingOffsets {
  const at = (address: bigint): number => (address === 0n ? 0 : Number(address - rings.address));
  return {
    ...{ sqHead: at(rings.sqHeadAt), sqTail: at(rings.sqTailAt), sqMask: at(rings.sqMaskAt) },
    ...{ sqEntries: at(rings.sqEntriesAt), sqFlags: at(rings.sqFlagsAt), sqDropped: at(rings.sqDroppedAt) },
    ...{ cqHead: at(rings.cqHeadAt), cqTail: at(rings.cqTailAt), cqMask: at(rings.cqMaskAt) },
    ...{ cqEntries: at(rings.cqEntriesAt), cqOverflow: at(rings.cqOverflowAt), cqes: at(rings.cqesAt) },
    ...{ cqFlags: at(rings.cqFlagsAt), sqArray: at(sqArray) },
  };
}

/** Throws a FileRefusal if the memory is smaller than what has to be in it. */
function checkSizes(context: IoRingCtx, { sqArray, cqes }: RingOffsets): void {
  const { flags, sq_entries, cq_entries, n_ring_pages, n_sqe_pages } = context;
  const wide = (flag: number): number => ((flags & flag) === 0 ? 1 : 2);
  const hasArray = (flags & ringFlags.noSqArray) === 0;
  const behindCompletions = cqes + cq_entries * CQE_BYTES * wide(ringFlags.cqe32);
  const end = hasArray ? sqArray + sq_entries * INDEX_BYTES : behindCompletions;
  const isPlaced = hasArray ? sqArray >= behindCompletions : sqArray === 0;
  const entries = sq_entries * SQE_BYTES * wide(ringFlags.sqe128);
  if (!isPlaced || end > n_ring_pages * PAGE_SIZE || entries > n_sqe_pages * PAGE_SIZE)
    throw FileRefusal.damaged(`${NAME} whose rings are damaged`);
}

/** The thread that alone may use the ring. Throws a FileRefusal if it is none of the process. */
function issuerOf(kernel: Kernel, { flags, submitter_task }: IoRingCtx, pid: number): number | undefined {
  if ((flags & ringFlags.singleIssuer) === 0) return undefined;
  const task: Task | undefined = submitter_task === 0n ? undefined : taskAt(kernel, submitter_task);
  if (task === undefined || task.tgid !== pid || task.exit_state !== 0)
    throw new FileRefusal(`${NAME} that only a thread may use which is gone (IORING_SETUP_SINGLE_ISSUER)`);
  return task.pid;
}

/** The process that has the descriptors. Throws a FileRefusal if that are several, or none. */
function ownerOf(context: CaptureContext, file: File): number {
  const holders = context.system.holdersOfFile(file.address);
  const [first] = holders;
  if (first === undefined) throw new FileRefusal(`${NAME} to which no descriptor leads`);
  const other = holders.find(({ pid }) => pid !== first.pid);
  if (other !== undefined) throw new FileRefusal(`shares an io_uring with ${showHolder(other)}`);
  return first.pid;
}

/**
 * Throws a FileRefusal if the system has been told since to make no more rings (kernel.io_uring_disabled of
 * 6.6: 1 for all but the privileged and a group, 2 for all), which it may be told again.
 */
function checkAllowed(kernel: Kernel): void {
  const setting = kernel.symbolMaybe('sysctl_io_uring_disabled');
  const value = setting === undefined ? 0 : kernel.memory.u32(setting);
  if (value !== 0) throw new FileRefusal(`${NAME}, and kernel.io_uring_disabled is ${value} by now`);
}

/**
 * An io_uring in which nothing is in flight. Throws a FileRefusal if there is, or if it cannot be brought to
 * where it was. A process that comes back for its procedure alone is without it.
 */
export function captureIoUring(context: CaptureContext, file: File): IoUring {
  const { kernel } = context;
  const pid = ownerOf(context, file);
  if (context.forProcedure.has(pid)) throw new FileRefusal('has an open io_uring');
  checkAllowed(kernel);
  const { ctx, rings } = readRing(kernel, file.private_data);
  if (file.f_ep !== 0n) throw new FileRefusal(`${NAME} that an epoll watches`);
  const common = context.common(file);
  if (common.flags !== FILE_FLAGS || common.owner.pid !== 0)
    throw new FileRefusal(`${NAME} whose file was set otherwise (fcntl)`);
  const offsets = offsetsOf(rings, ctx.sq_array);
  checkSizes(ctx, offsets);
  const ring: IoUring = {
    ...{ type: 'io-uring', ...common, setup: ctx.flags },
    ...{ sqEntries: ctx.sq_entries, cqEntries: ctx.cq_entries },
    ...{ requests: ctx.cached_sq_head, completions: ctx.cached_cq_tail },
    unread: ahead(ctx.cached_cq_tail, rings.cqHead),
    issuer: issuerOf(kernel, ctx, pid),
    offsets,
    rings: pagesAt(kernel, ctx.rings, ctx.n_ring_pages),
    entries: pagesAt(kernel, ctx.sq_sqes, ctx.n_sqe_pages),
  };
  const found = { ring, references: Number(file.f_count), seconds: secondsToCount(ctx) };
  context.of(Rings).found.set(file.address, found);
  return ring;
}

/**
 * An area that is the shared memory of a ring.
 *
 * @param capture captures its open file
 */
export function mapIoUring(
  context: CaptureContext,
  file: File,
  use: MappingUse,
  capture: (address: bigint) => number,
): MappedFile {
  const ringPart = parts.get(use.offsetBytes);
  if (ringPart === undefined) throw new FileRefusal(`${NAME} of which another part is mapped`);
  const fileId = capture(file.address);
  if (ownerOf(context, file) !== use.pid)
    throw new FileRefusal('maps an io_uring to which no descriptor of it leads');
  if (!use.shared || use.prot !== (PROT_READ | PROT_WRITE))
    throw new FileRefusal(`${NAME} that is mapped in another way`);
  return { kind: 'io-uring', fileId, ringPart };
}

function problemOf(
  { ring, references }: FoundRing,
  descriptors: ReadonlySet<number>,
  vmas: readonly Vma[],
  waits: readonly (number | undefined)[],
): string | undefined {
  const areas = vmas.filter(({ kind, fileId }) => kind === 'io-uring' && fileId === ring.id);
  const isWhole = (part: RingPart, { pages }: PageRuns): boolean =>
    areas.some(({ ringPart, start, end }) => ringPart === part && end - start >= pages * PAGE_SIZE);
  if (!isWhole('rings', ring.rings) || !isWhole('entries', ring.entries))
    return 'that is not mapped as a whole';
  // Who waits in it, or may wait for it among others, holds it, as do areas; anybody else is not known.
  const waiting = waits.filter((fd) => fd === undefined || descriptors.has(fd));
  const known = descriptors.size + areas.length + waiting.length;
  return references > known ? 'that others hold as well' : undefined;
}

/** The rings that a process has again, with its descriptors of each. */
function ringsOf(
  context: CaptureContext,
  pid: number,
): { readonly found: FoundRing; readonly descriptors: ReadonlySet<number> }[] {
  return [...context.of(Rings).found].flatMap(([address, found]) => {
    const holders = context.system.holdersOfFile(address).filter((holder) => holder.pid === pid);
    const isKept = holders.length > 0 && context.opened.get(address) === found.ring;
    return isKept ? [{ found, descriptors: new Set(holders.map(({ fd }) => fd)) }] : [];
  });
}

/** See `FileCapture.ringSeconds`. */
export function ringSeconds(context: CaptureContext, pid: number, vmas: readonly Vma[]): number {
  return secondsTogether(
    ringsOf(context, pid).map(({ found }) => found.seconds),
    vmas,
  );
}

/** See `FileCapture.ringProblems`. */
export function ringProblems(
  context: CaptureContext,
  pid: number,
  vmas: readonly Vma[],
  waits: readonly (number | undefined)[],
): string[] {
  const own = ringsOf(context, pid);
  if (own.length === 0) return [];
  const problems = own.flatMap(({ found, descriptors }) => {
    const problem = problemOf(found, descriptors, vmas, waits);
    return problem === undefined ? [] : [`${NAME} ${problem} (fd ${[...descriptors][0]})`];
  });
  const together = togetherProblem(
    own.map(({ found }) => found.seconds),
    vmas,
  );
  return [...new Set(problems), ...(together === undefined ? [] : [together])];
}
