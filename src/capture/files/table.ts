import { type FdSlot, fdSlots } from '../../linux/fdtable.ts';
import { taskAt } from '../../linux/sched.ts';
import type { FdTable, FileDescriptor } from '../../model/file.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { FileReason, FileTask } from '../file-capture.ts';
import type { CaptureContext } from './context.ts';
import { captureOpenFile } from './open-file.ts';
import { FileRefusal } from './refusal.ts';
import { checkReserved } from './reserved.ts';

/** A descriptor that both sources, array and bitmap, say is open. */
function checkSlot({ fd, file, inBitmap }: FdSlot): boolean {
  // Reserved while its file is being opened: see checkReserved.
  if (file === 0n) return false;
  if (!inBitmap) throw new FileRefusal(`has fd ${fd} in the table but not in the bitmap of open descriptors`);
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
 * The descriptors of a process. Every file that cannot be brought back is a reason against the process; the
 * table then lacks its descriptor.
 */
export function captureTable(context: CaptureContext, { pid, task, filesId }: FileTask): FdTable {
  const descriptors: FileDescriptor[] = [];
  const refused = new RefusedDescriptors();
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
        refused.add(error, slot);
      }
    }
    checkReserved(context, files, slots);
  } catch (error) {
    if (error instanceof FileRefusal) context.refuse(pid, error.reason, error.moment);
    else if (error instanceof VmcoreError)
      context.refuse(pid, `has a file table that cannot be read: ${error.message}`);
    else throw error;
  }
  for (const { reason, moment } of refused.reasons()) context.refuse(pid, reason, moment);
  return { filesId, descriptors };
}
