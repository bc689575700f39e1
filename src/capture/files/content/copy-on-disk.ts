import type { ContentOnDisk } from '../../../model/file.ts';
import type { FileIdentity } from '../../../model/open-file.ts';
import type { PageRuns } from '../../../model/page-runs.ts';
import { PAGE_SIZE } from '../../../system/page.ts';
import type { PhysicalMemory } from '../../../vmcore/physical.ts';
import type { DiskFile, Disks } from '../../file-capture.ts';
import { type ByteRange, buildIdParts } from './build-id.ts';

/** Bytes that are compared at a time. */
const PIECE = 1 << 20;

/** A file that has lost its name, as memory has it. */
export interface DeletedFile {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly modifiedNanoseconds: bigint;
  /** What is in memory of it; `address` of a run is the offset in the file. */
  readonly runs: PageRuns;
}

/** What of a file is in no run, cut off at its end. */
function missingRanges({ runs, identity: { sizeBytes } }: DeletedFile): ByteRange[] {
  const missing: ByteRange[] = [];
  let end = 0;
  for (const { address, pages } of runs) {
    if (address > end) missing.push({ offset: end, length: address - end });
    end = address + pages * PAGE_SIZE;
  }
  if (end < sizeBytes) missing.push({ offset: end, length: sizeBytes - end });
  return missing;
}

function overlap(a: ByteRange, b: ByteRange): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

/** Packages keep the time of change of each of their files: one that was changed in place has another. */
function hasSameAttributes(file: DiskFile, { identity, modifiedNanoseconds }: DeletedFile): boolean {
  return (
    file.mode === identity.mode &&
    file.uid === identity.uid &&
    file.gid === identity.gid &&
    file.sizeBytes === identity.sizeBytes &&
    file.modifiedNanoseconds === modifiedNanoseconds
  );
}

/** Whether the disk has the same bytes wherever memory has any. */
function agrees(memory: Pick<PhysicalMemory, 'withView'>, file: DiskFile, deleted: DeletedFile): boolean {
  for (const { address, pages, physical } of deleted.runs) {
    const length = Math.min(pages * PAGE_SIZE, deleted.identity.sizeBytes - address);
    for (let done = 0; done < length; done += PIECE) {
      const part = Math.min(PIECE, length - done);
      const there = file.read(address + done, part);
      if (there === undefined) return false;
      if (!memory.withView(physical + done, part, (bytes) => there.equals(bytes))) return false;
    }
  }
  return true;
}

/**
 * What memory lacks of a deleted program or library, out of the file that has its path now, if that is a copy
 * of it, as after a package was installed again: it has the same owner, mode, size, time of change and build
 * id, and the same bytes wherever memory has any. The build id has to be among these. Undefined if there is
 * no such file.
 */
export function contentOfCopy(
  memory: Pick<PhysicalMemory, 'withView'>,
  deleted: DeletedFile,
  disks: Disks,
): ContentOnDisk | undefined {
  const file = disks.open(deleted.path);
  if (file === undefined) return undefined;
  try {
    if (!hasSameAttributes(file, deleted)) return undefined;
    const ranges = missingRanges(deleted);
    const parts = buildIdParts((offset, length) => file.read(offset, length));
    if (parts === undefined || parts.some((part) => ranges.some((range) => overlap(part, range))))
      return undefined;
    return agrees(memory, file, deleted) ? { path: deleted.path, inode: file.inode, ranges } : undefined;
  } finally {
    file.close();
  }
}
