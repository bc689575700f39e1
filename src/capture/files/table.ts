import { type FdSlot, fdSlots } from '../../linux/fdtable.ts';
import { taskAt } from '../../linux/sched.ts';
import type { FdTable, FileDescriptor } from '../../model/file.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { FileReason, FileTask } from '../file-capture.ts';
import type { CaptureContext } from './context.ts';
import { LostDescriptors } from './lost-descriptors.ts';
import { captureOpenFile } from './open-file.ts';
import { FileRefusal, momentOfError } from './refusal.ts';
import { checkReserved } from './reserved.ts';

/** A descriptor that both sources, array and bitmap, say is open. */
function checkSlot({ fd, file, inBitmap }: FdSlot): boolean {
  // Reserved while its file is being opened: see checkReserved.
  if (file === 0n) return false;
  if (!inBitmap)
    throw FileRefusal.damaged(`has fd ${fd} in the table but not in the bitmap of open descriptors`);
  return true;
}

/**
 * Refused files of a table, each with the descriptor that is the file's own: a file can also be refused
 * through an epoll that watches it.
 */
export class RefusedDescriptors {
  readonly #found = new Map<FileRefusal, { readonly fd: number; readonly isOwn: boolean }>();

  add(refusal: FileRefusal, { fd, file }: Pick<FdSlot, 'fd' | 'file'>): void {
    const isOwn = refusal.file === undefined || refusal.file === file;
    const known = this.#found.get(refusal);
    if (known === undefined || (isOwn && !known.isOwn)) this.#found.set(refusal, { fd, isOwn });
  }

  /** The reasons, one for each file. */
  reasons(): FileReason[] {
    return [...this.#found].map(([{ reason, moment }, { fd, isOwn }]) => ({
      reason: `${reason} (${isOwn ? 'fd' : 'watched by fd'} ${fd})`,
      moment,
    }));
  }
}

/**
 * Whether a process that comes back for its procedure alone can be without a file. Damage is no loss, and of
 * a living kernel what is of the moment stays that.
 */
function canBeLost(
  { forProcedure, kernel }: CaptureContext,
  pid: number,
  { isDamage, moment }: FileRefusal,
): boolean {
  return forProcedure.has(pid) && !isDamage && !(kernel.isAlive && moment !== undefined);
}

/** Why a descriptor is lost: its own file is refused, or one that it watches. */
function lossOf({ reason, file }: FileRefusal, slot: FdSlot): string {
  const isOwn = file === undefined || file === slot.file;
  return isOwn ? reason : `watches what is gone as well: it ${reason}`;
}

/**
 * The descriptors of a process. Every file that cannot be brought back is a reason against the process, and
 * the table then lacks its descriptor; or it is lost: see `LostDescriptors`.
 */
export function captureTable(context: CaptureContext, { pid, task, filesId }: FileTask): FdTable {
  const descriptors: FileDescriptor[] = [];
  const refused = new RefusedDescriptors();
  const lost = context.of(LostDescriptors);
  try {
    const { files } = taskAt(context.kernel, task);
    const slots = fdSlots(context.kernel, files);
    for (const slot of slots) {
      const { fd, closeOnExec } = slot;
      try {
        if (!checkSlot(slot)) continue;
        descriptors.push({ fd, fileId: captureOpenFile(context, slot.file).id, closeOnExec });
      } catch (error) {
        if (!(error instanceof FileRefusal)) throw error;
        if (canBeLost(context, pid, error)) descriptors.push(lost.lose(pid, fd, lossOf(error, slot)));
        else refused.add(error, slot);
      }
    }
    checkReserved(context, files, slots);
  } catch (error) {
    if (error instanceof FileRefusal) context.refuse(pid, error.reason, error.moment);
    else if (error instanceof VmcoreError)
      context.refuse(pid, `has a file table that cannot be read: ${error.message}`, momentOfError(error));
    else throw error;
  }
  for (const { reason, moment } of refused.reasons()) context.refuse(pid, reason, moment);
  return {
    filesId,
    descriptors: context.forProcedure.has(pid) ? lost.closure(pid, descriptors) : descriptors,
  };
}
