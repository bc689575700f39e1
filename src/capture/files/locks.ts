import { fileAt } from '../../linux/file.ts';
import { fileLocks, type KernelFileLock } from '../../linux/filelock.ts';
import { inodeStruct } from '../../linux/fs.ts';
import { taskAt } from '../../linux/sched.ts';
import type { FileLock } from '../../model/file.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { CaptureContext } from './context.ts';
import type { Holder } from './holders/holders.ts';
import type { GroupSelection } from './kind.ts';
import { LostDescriptors } from './lost-descriptors.ts';
import { momentOfError } from './refusal.ts';

const END_OF_FILE = 0x7fff_ffff_ffff_ffffn;

function lockOf(context: CaptureContext, lock: KernelFileLock, holder: Holder): FileLock | undefined {
  const { kind, type } = lock;
  if (kind === 'lease') {
    context.refuse(holder.pid, `has a lease on a file (fd ${holder.fd})`);
    return undefined;
  }
  const [start, end] = [lock.start, lock.end];
  if (start < 0n || start > BigInt(Number.MAX_SAFE_INTEGER) || end < start) {
    context.refuse(holder.pid, `has an impossible lock on a file (fd ${holder.fd})`);
    return undefined;
  }
  const length = kind === 'flock' || end === END_OF_FILE ? 0 : Number(end - start) + 1;
  return { kind, type, pid: holder.pid, fd: holder.fd, start: Number(start), length };
}

/** Where in a list of holders the first one is that has something. */
function firstBy(
  holders: readonly Holder[],
  keyOf: (holder: Holder) => bigint | undefined,
): ReadonlyMap<bigint, number> {
  const places = new Map<bigint, number>();
  for (const [place, holder] of holders.entries()) {
    const key = keyOf(holder);
    if (key !== undefined && !places.has(key)) places.set(key, place);
  }
  return places;
}

/**
 * Locks of protected processes on one inode: POSIX locks belong to a file table, the others to an open file.
 */
function locksOnInode(context: CaptureContext, flctx: bigint, holders: readonly Holder[]): FileLock[] {
  const locks = fileLocks(context.kernel, flctx);
  if (locks.length === 0) return [];
  const byFile = firstBy(holders, ({ file }) => file);
  const hasPosix = locks.some(({ kind }) => kind === 'posix');
  const byTable = firstBy(hasPosix ? holders : [], ({ pid }) => {
    const task = context.tasks.get(pid);
    return task === undefined ? undefined : readable(() => taskAt(context.kernel, task.task).files);
  });
  return locks.flatMap((lock) => {
    const places =
      lock.kind === 'posix' ? [byTable.get(lock.owner)] : [byFile.get(lock.owner), byFile.get(lock.file)];
    const owner = holders[Math.min(...places.map((place) => place ?? holders.length))];
    const found = owner === undefined ? undefined : lockOf(context, lock, owner);
    return found === undefined ? [] : [found];
  });
}

/** The inode of an open file; undefined for a damaged one, which its descriptor is refused for. */
function inodeOf(kernel: Kernel, address: bigint): bigint | undefined {
  try {
    return fileAt(kernel, address)?.f_inode;
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return undefined;
  }
}

/** The locks that protected processes hold. */
class Locks {
  readonly all: FileLock[] = [];
}

/** The locks of a group's processes. */
export function locksOf({ context, pids }: GroupSelection): FileLock[] {
  return context.of(Locks).all.filter(({ pid }) => pids.has(pid));
}

/**
 * Finds all locks that protected processes hold. Leases and damaged locks become reasons against their owner.
 */
export function collectLocks(context: CaptureContext): void {
  const { kernel, system } = context;
  const Inode = kernel.bind(inodeStruct);
  // Locks go with the descriptors that they were made by, as if these had been closed.
  const lost = context.of(LostDescriptors);
  const byInode = new Map<bigint, Holder[]>();
  for (const [address, holders] of system.byFile) {
    const own = holders
      .filter(({ isProtected, pid, fd }) => isProtected && !lost.has(pid, fd))
      .toSorted((a, b) => a.pid - b.pid || a.fd - b.fd);
    const inode = own.length === 0 ? undefined : inodeOf(kernel, address);
    if (inode === undefined) continue;
    const known = byInode.get(inode);
    if (known === undefined) byInode.set(inode, own);
    else for (const holder of own) known.push(holder);
  }
  const { all } = context.of(Locks);
  for (const [inode, holders] of byInode) {
    try {
      const { i_flctx } = Inode.at(inode);
      if (i_flctx !== 0n) all.push(...locksOnInode(context, i_flctx, holders));
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      for (const { pid, fd } of holders)
        context.refuse(
          pid,
          `has locks that cannot be read: ${error.message} (fd ${fd})`,
          momentOfError(error),
        );
    }
  }
}
