import { fileAt } from '../../linux/file.ts';
import { fileLocks, type KernelFileLock } from '../../linux/filelock.ts';
import { inodeStruct } from '../../linux/fs.ts';
import { taskAt } from '../../linux/sched.ts';
import type { FileLock } from '../../model/file.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
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

/**
 * Locks of protected processes on one inode: POSIX locks belong to a file table, the others to an open file.
 */
function locksOnInode(context: CaptureContext, flctx: bigint, holders: readonly Holder[]): FileLock[] {
  return fileLocks(context.kernel, flctx).flatMap((lock) => {
    const owner = holders.find((holder) => {
      if (lock.kind !== 'posix') return holder.file === lock.owner || holder.file === lock.file;
      const task = context.tasks.get(holder.pid);
      return task !== undefined && taskAt(context.kernel, task.task).files === lock.owner;
    });
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
    if (inode !== undefined) byInode.set(inode, [...(byInode.get(inode) ?? []), ...own]);
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
