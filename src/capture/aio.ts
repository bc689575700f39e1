import {
  AIO_RING_MAGIC,
  type AioRing,
  aioContexts,
  aioRing,
  type Kioctx,
  requestsAvailable,
} from '../linux/aio.ts';
import { fileAt } from '../linux/file.ts';
import { type File, inodeStruct } from '../linux/fs.ts';
import { listEmpty } from '../linux/list.ts';
import type { Mm } from '../linux/mm-types.ts';
import { percpuRefCount } from '../linux/percpu-refcount.ts';
import { mappingsOf } from '../linux/readers/i-mmap.ts';
import type { Vma } from '../model/memory.ts';
import type { PageRuns } from '../model/page-runs.ts';
import { PROT_READ, PROT_WRITE } from '../system/abi.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { ContainerError, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { MappedFile, MappingUse } from './file-capture.ts';
import { pageCache } from './files/content/page-cache.ts';
import type { CaptureContext } from './files/context.ts';
import { FileRefusal } from './files/refusal.ts';

const CONTEXT = 'an asynchronous I/O context (io_setup)';
/** References to `reqs` of a context without requests: its own, and the one for those who use it. */
const WITHOUT_REQUESTS = 2n;

/** What of a context and its ring tells whether it can be had again. */
export interface AioState {
  readonly context: Pick<
    Kioctx,
    'user_id' | 'mmap_base' | 'mmap_size' | 'nr_events' | 'tail' | 'completed_events' | 'ringLockOwner'
  > &
    Pick<Kioctx, 'completionLock' | 'id'>;
  readonly ring: Pick<AioRing, 'id' | 'nr' | 'head' | 'tail' | 'magic'>;
  /** Places for requests that are free (reqs_available), on all CPUs. */
  readonly available: number;
  /** See percpuRefCount. */
  readonly references: bigint;
  readonly hasActive: boolean;
}

/**
 * Why a context cannot be had again, going on after its name. Places in the ring are free, of a request in
 * flight, or of an event that nobody has said to have read (`completed_events`).
 */
export function aioProblem({
  context,
  ring,
  available,
  references,
  hasActive,
}: AioState): string | undefined {
  const { nr_events: places, completed_events: completed, tail } = context;
  if (context.completionLock !== 0 || context.ringLockOwner !== 0n) return 'whose ring was being changed';
  if (references !== WITHOUT_REQUESTS || hasActive || available + completed !== places - 1)
    return 'with requests in flight';
  const isSame = ring.nr === places && ring.id === context.id && ring.tail === tail;
  if (ring.magic !== AIO_RING_MAGIC || !isSame || ring.head >= places || tail >= places)
    return 'whose ring is damaged';
  if (context.user_id !== context.mmap_base) return 'whose ring is not where it was made';
  const unread = (tail - ring.head + places) % places;
  return unread > completed ? 'whose ring has more events than were put there' : undefined;
}

function stateOf(kernel: Kernel, context: Kioctx): AioState {
  const [first] = ringPages(kernel, context.aio_ring_file);
  return {
    context,
    ring: kernel.bind(aioRing).at(kernel.physicalToVirtual(first?.physical ?? 0)),
    available: requestsAvailable(kernel, context),
    references: percpuRefCount(kernel, context.reqs),
    hasActive: !listEmpty(kernel, context.active_reqs),
  };
}

/** Why one context cannot be had again; undefined if it can. */
function problemOf(kernel: Kernel, context: Kioctx, vmas: readonly Vma[]): string | undefined {
  const problem = aioProblem(stateOf(kernel, context));
  if (problem !== undefined) return problem;
  const { mmap_base: start, mmap_size: bytes } = context;
  const area = vmas.find((vma) => vma.start === start && vma.kind === 'aio-ring');
  const isWhole = area !== undefined && area.end - area.start === bytes && area.offsetBytes === 0;
  return isWhole ? undefined : 'whose ring is not mapped as a whole';
}

/**
 * What of an address space's AIO contexts cannot be had again: a context comes back with the events in its
 * ring if it has no requests in flight. Each of its rings is an area, and each such area is a ring's.
 *
 * @param vmas its areas
 */
export function aioProblems(kernel: Kernel, { ioctx_table: table = 0n }: Mm, vmas: readonly Vma[]): string[] {
  try {
    const contexts = aioContexts(kernel, table);
    const problems = contexts.flatMap((context) => problemOf(kernel, context, vmas) ?? []);
    const rings = vmas.filter(({ kind }) => kind === 'aio-ring');
    const isKnown = ({ start }: Vma): boolean => contexts.some(({ mmap_base }) => mmap_base === start);
    if (!rings.every(isKnown)) problems.push('that is not its own');
    return [...new Set(problems)].map((problem) => `has ${CONTEXT} ${problem}`);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return [`has ${CONTEXT} that cannot be read: ${error.message}`];
  }
}

/**
 * The pages of a ring, by its `struct file`, and by their place in the ring. Throws a VmcoreError, also if
 * one is missing.
 */
function ringPages(kernel: Kernel, file: bigint): PageRuns {
  const { f_inode = 0n } = fileAt(kernel, file) ?? {};
  const { i_mapping, i_size } = kernel.bind(inodeStruct).at(f_inode);
  const { runs } = pageCache(kernel, i_mapping, false);
  if (runs.pages === 0 || runs.pages * PAGE_SIZE !== i_size)
    throw new ContainerError('aio ring', file, `has ${runs.pages} pages for its ${i_size} bytes`);
  return runs;
}

/** The same by their user addresses, of an area that has the ring as a whole. */
export function ringAreaPages(kernel: Kernel, file: bigint, start: number): PageRuns {
  const pages = ringPages(kernel, file);
  return {
    pages: pages.pages,
    *[Symbol.iterator]() {
      for (const run of pages) yield { ...run, address: start + run.address };
    },
  };
}

/** An area that is the ring of an AIO context. Throws a FileRefusal if it cannot be made again. */
export function mapAioRing(context: CaptureContext, file: File, use: MappingUse): MappedFile {
  const { kernel } = context;
  const { i_mapping } = kernel.bind(inodeStruct).at(file.f_inode);
  if (!use.shared || use.prot !== (PROT_READ | PROT_WRITE))
    throw new FileRefusal(`has ${CONTEXT} whose ring is mapped in another way`);
  if (mappingsOf(kernel, i_mapping).length !== 1)
    throw new FileRefusal(`has ${CONTEXT} whose ring is mapped more than once`);
  ringPages(kernel, file.address);
  if (use.locked)
    context.note(use.pid, 'the ring of its asynchronous I/O context is no longer locked (mlock)');
  // CRIU takes areas of parent and child at one place for inherited ones if they have the same number.
  return { kind: 'aio-ring', shmid: context.nextId() };
}
