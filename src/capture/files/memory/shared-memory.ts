import { type File, type Inode, inodeStruct } from '../../../linux/fs.ts';
import type { SharedMemory } from '../../../model/memory.ts';
import type { MappedFile, MappingUse } from '../../file-capture.ts';
import { pageCache } from '../content/page-cache.ts';
import type { CaptureContext } from '../context.ts';
import type { GroupSelection } from '../kind.ts';
import { FileRefusal } from '../refusal.ts';
import { noteSwapped } from './swap-note.ts';

/** Memory that areas share and that has no path. */
class SharedMemories {
  readonly byInode = new Map<bigint, SharedMemory>();
  /** Processes that map one, by its id. */
  readonly users = new Map<number, Set<number>>();
}

/** The content of shared memory, once per inode. Throws a FileRefusal if part of it cannot be had. */
export function captureSharedMemory(
  context: CaptureContext,
  inode: Inode,
  origin: SharedMemory['origin'],
): SharedMemory {
  const { byInode } = context.of(SharedMemories);
  const known = byInode.get(inode.address);
  if (known !== undefined) return known;
  const { runs, lost } = pageCache(context.kernel, inode.i_mapping, true);
  if (lost !== undefined)
    throw new FileRefusal(`has shared memory of which ${lost.pages} pages are in swap: ${lost.why}`);
  const memory: SharedMemory = { shmid: context.nextId(), origin, sizeBytes: inode.i_size, runs };
  byInode.set(inode.address, memory);
  return memory;
}

/**
 * The content of shared memory that a process maps: joins those who do. Throws as `captureSharedMemory`, and
 * a FileRefusal if somebody maps it who is not protected.
 */
export function mapSharedMemory(
  context: CaptureContext,
  file: File,
  { pid, shared }: MappingUse,
  origin: SharedMemory['origin'],
): SharedMemory {
  const inode = context.kernel.bind(inodeStruct).at(file.f_inode);
  const sharing = context.mappers.sharing(inode.i_mapping, 'shared', shared ? pid : undefined);
  context.join(sharing, 'shared memory');
  const memory = captureSharedMemory(context, inode, origin);
  const { users } = context.of(SharedMemories);
  const pids = (users.get(memory.shmid) ?? new Set()).add(pid);
  users.set(memory.shmid, pids);
  const [first = pid] = pids;
  context.join([first, pid], 'shared memory');
  noteSwapped(context, inode.i_mapping, 'shared memory', [pid]);
  return memory;
}

/**
 * A mapping of MAP_SHARED | MAP_ANONYMOUS, or of /dev/zero; a private one of that is any anonymous memory.
 * Throws as `mapSharedMemory`.
 */
export function mapAnonymous(context: CaptureContext, file: File, use: MappingUse): MappedFile {
  const { shmid } = mapSharedMemory(context, file, use, 'anonymous');
  return { kind: use.shared ? 'shared-memory' : 'anonymous', shmid };
}

/** The shared memory that a group maps or has open. */
export function sharedMemoryOf({ context, pids, shmids }: GroupSelection): SharedMemory[] {
  const { byInode, users } = context.of(SharedMemories);
  const isMapped = (shmid: number): boolean => [...(users.get(shmid) ?? [])].some((pid) => pids.has(pid));
  return [...byInode.values()].filter(({ shmid }) => shmids.has(shmid) || isMapped(shmid));
}
