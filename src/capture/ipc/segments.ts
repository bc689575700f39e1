import { fileAt } from '../../linux/file.ts';
import { type File, fileSystemOf, type Inode, inodeStruct } from '../../linux/fs.ts';
import type { IpcObject } from '../../linux/ipc.ts';
import { mappingsOf } from '../../linux/readers/i-mmap.ts';
import { taskAt } from '../../linux/sched.ts';
import { isNotReserved, SHM, type ShmidKernel, segmentObject, shmSegments } from '../../linux/shm.ts';
import type { SharedSegment } from '../../model/segment.ts';
import { PROT_EXEC } from '../../system/abi.ts';
import { pageEnd } from '../../system/page.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { MappedFile, MappingUse } from '../file-capture.ts';
import { pageCache } from '../files/content/page-cache.ts';
import type { CaptureContext } from '../files/context.ts';
import type { GroupSelection } from '../files/kind.ts';
import { noteSwapped } from '../files/memory/swap-note.ts';
import { FileRefusal } from '../files/refusal.ts';
import type { SharedResource } from '../shared-resource.ts';
import { ipcLosses, loseIpc } from './ipc.ts';

const O_RDWR = 2;

type Attachment = Pick<MappingUse, 'pid' | 'start' | 'end' | 'offsetBytes'>;

/** A segment that protected processes use. */
interface UsedSegment {
  readonly segment: Omit<SharedSegment, 'attachments'>;
  /** Protected processes that have it attached, have made it or used it last. */
  readonly users: ReadonlySet<number>;
  /** Areas of those that have it attached; complete once all mappings have been asked for. */
  readonly attachments: Attachment[];
  /** As it is told of if its users do not come back. */
  readonly object: IpcObject;
  /** A group has it that comes back. */
  isKept: boolean;
}

/** The segments that come back, and those that do not. */
class Segments {
  /** By the address of the inode of their memory. */
  readonly used = new Map<bigint, UsedSegment>();
  /** Why others do not; each reason goes on after the segment's name. */
  readonly refused = new Map<bigint, FileRefusal>();
  readonly lost: IpcObject[] = [];
  readonly problems: string[] = [];
}

function inodeOf({ kernel }: CaptureContext, { shm_file }: ShmidKernel): Inode {
  const file = fileAt(kernel, shm_file);
  if (file === undefined) throw new FileRefusal('has no memory');
  return kernel.bind(inodeStruct).at(file.f_inode);
}

/** Protected processes that made the segment or used it last. */
function makersOf({ kernel, tasks }: CaptureContext, { shm_cprid, shm_lprid }: ShmidKernel): number[] {
  const pidOf = (task: bigint): bigint => readable(() => taskAt(kernel, task).thread_pid) ?? 0n;
  const isMaker = (pid: bigint): boolean => pid !== 0n && (pid === shm_cprid || pid === shm_lprid);
  return [...tasks.values()].filter(({ task }) => isMaker(pidOf(task))).map(({ pid }) => pid);
}

/**
 * What has to be known of a segment to make it again. Throws a FileRefusal, of which the reason goes on after
 * `which`.
 */
function captureSegment(
  { kernel }: CaptureContext,
  found: ShmidKernel,
  inode: Inode,
): UsedSegment['segment'] {
  const { id, key, uid, gid, cuid, cgid, mode, shm_nattch, shm_segsz: sizeBytes } = found;
  const fileSystem = fileSystemOf(kernel, inode.i_sb).name;
  if (fileSystem !== 'tmpfs') throw new FileRefusal(`is of huge pages (${fileSystem})`);
  if (inode.i_ino !== id || inode.i_size !== sizeBytes) {
    throw FileRefusal.damaged(
      `is damaged: its memory is of segment ${inode.i_ino}, of ${inode.i_size} bytes`,
    );
  }
  const known = mappingsOf(kernel, inode.i_mapping).length;
  if (known < shm_nattch)
    throw new FileRefusal(`is attached ${shm_nattch} times, of which ${known} are known`);
  const { runs, lost } = pageCache(kernel, inode.i_mapping, true);
  if (lost !== undefined) throw new FileRefusal(`has ${lost.pages} pages in swap: ${lost.why}`);
  return {
    ...{ id, key: key >>> 0, uid, gid, cuid, cgid, sizeBytes, runs },
    mode: mode & 0o777,
    isRemoved: (mode & SHM.dest) !== 0,
    isLocked: (mode & SHM.locked) !== 0,
    isNotReserved: isNotReserved(kernel, inode.address),
  };
}

/** Finds who uses a segment. Throws a FileRefusal, or a VmcoreError, if those cannot have it again. */
function collectSegment(context: CaptureContext, found: ShmidKernel, makers: readonly number[]): void {
  const { used, refused, lost } = context.of(Segments);
  const inode = inodeOf(context, found);
  try {
    const attached = mappersOf(context, inode, makers);
    const users = new Set([...attached, ...makers]);
    if (users.size === 0) {
      lost.push(segmentObject(found));
      return;
    }
    context.join([...users], 'shared memory');
    const segment = captureSegment(context, found, inode);
    noteSwapped(context, inode.i_mapping, nameOf(found), users);
    const object = segmentObject(found);
    used.set(inode.address, { segment, users, attachments: [], object, isKept: false });
  } catch (error) {
    const refusal = refusalOf(error);
    refused.set(inode.address, refusal);
    throw refusal;
  }
}

/** Why a segment cannot be had again, after its name. Throws what says nothing of it. */
function refusalOf(error: unknown): FileRefusal {
  if (error instanceof FileRefusal) return error;
  if (!(error instanceof VmcoreError)) throw error;
  return FileRefusal.unreadable('', error);
}

/**
 * Protected processes that have it attached. One that nobody of them has made either is of no interest if
 * others have it.
 */
function mappersOf(
  context: CaptureContext,
  { i_mapping }: Inode,
  makers: readonly number[],
): readonly number[] {
  const spaces = new Set(mappingsOf(context.kernel, i_mapping).map(({ mm }) => mm));
  const isOurs = [...spaces].some((mm) =>
    context.mappers.usersOf(mm).some(({ pid }) => context.tasks.has(pid)),
  );
  return isOurs || makers.length > 0 ? context.mappers.sharing(i_mapping, 'shared') : [];
}

/** For a sentence; of one that cannot be read without its number. */
function nameOf(segment: { readonly id: number }): string {
  const id = readable(() => segment.id);
  return id === undefined ? 'a System V shared memory segment' : `the System V shared memory segment ${id}`;
}

/**
 * System V shared memory of the initial IPC namespace: a segment that protected processes have attached, or
 * that one of them has made or used last, comes back with them.
 */
export const sharedSegments: SharedResource = {
  collect(context) {
    const { lost, problems } = context.of(Segments);
    const { objects, problems: unreadable } = shmSegments(context.kernel);
    problems.push(...unreadable);
    for (const found of objects) {
      let makers: number[] = [];
      try {
        makers = makersOf(context, found);
        collectSegment(context, found, makers);
      } catch (error) {
        const { reason } = refusalOf(error);
        for (const pid of makers) context.refuse(pid, `uses ${nameOf(found)}, which ${reason}`);
        const object = readable(() => segmentObject(found));
        if (object === undefined) problems.push(`a System V shared memory segment ${reason}`);
        // Who uses it has another reason than that it is lost.
        else lost.push({ ...object, users: [] });
      }
    }
    loseIpc(context, { objects: lost, problems });
  },
  losses: (context) => {
    const { used, lost, problems } = context.of(Segments);
    const left = [...used.values()].filter(({ isKept }) => !isKept).map(({ object }) => object);
    return ipcLosses({ objects: [...lost, ...left], problems });
  },
};

const NOT_FOUND = { reason: 'is not found in the initial IPC namespace', isDamage: false };

/** An area that shmat(2) has made. Throws a FileRefusal if it cannot be made again. */
export function mapSegment(context: CaptureContext, file: File, use: MappingUse): MappedFile {
  const { pid, start, end, offsetBytes } = use;
  const { i_mapping } = context.kernel.bind(inodeStruct).at(file.f_inode);
  // Nobody but who is known to the kernel to have it attached, and nobody who is not protected.
  context.mappers.sharing(i_mapping, 'shared', pid);
  const { used, refused } = context.of(Segments);
  const found = used.get(file.f_inode);
  if (found === undefined) {
    const { reason, isDamage } = refused.get(file.f_inode) ?? NOT_FOUND;
    const what = `has a System V shared memory segment attached, which ${reason}`;
    throw isDamage ? FileRefusal.damaged(what) : new FileRefusal(what);
  }
  const what = nameOf(found.segment);
  if (!use.shared) throw new FileRefusal(`has a private mapping of ${what}`);
  if ((use.prot & PROT_EXEC) !== 0) throw new FileRefusal(`has ${what} attached for execution`);
  if (use.locked) context.note(pid, `${what} is attached and no longer locked (mlock)`);
  found.attachments.push({ pid, start, end, offsetBytes });
  return { kind: 'segment', segment: { id: found.segment.id, isWritable: use.openFlags === O_RDWR } };
}

/**
 * The attachments, each of one call of shmat(2). Throws a FileRefusal if a part of one is missing: it cannot
 * be attached like that.
 */
function attachmentsOf({ segment, attachments }: UsedSegment): number {
  const bytes = pageEnd(segment.sizeBytes);
  const byPlace = attachments.toSorted((a, b) => a.pid - b.pid || a.start - b.start);
  let [whole, pid, at, end] = [0, 0, 0, bytes];
  for (const area of byPlace) {
    const isNext = end < bytes && area.pid === pid && area.start === at && area.offsetBytes === end;
    const isFirst = end === bytes && area.offsetBytes === 0;
    if (!isNext && !isFirst) break;
    if (isFirst) whole++;
    [pid, at, end] = [area.pid, area.end, area.offsetBytes + area.end - area.start];
    if (area === byPlace.at(-1) && end === bytes) return whole;
  }
  if (byPlace.length === 0) return 0;
  throw new FileRefusal(`has only a part of ${nameOf(segment)} attached`);
}

/** The segments that processes of a group use. Throws a FileRefusal: see `attachmentsOf`. */
export function segmentsOf({ context, pids }: GroupSelection): SharedSegment[] {
  const own = [...context.of(Segments).used.values()].filter(({ users }) => !users.isDisjointFrom(pids));
  const segments = own.map((used) => ({ ...used.segment, attachments: attachmentsOf(used) }));
  for (const used of own) used.isKept = true;
  return segments;
}
