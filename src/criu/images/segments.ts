import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '../../model/group.ts';
import type { Vma } from '../../model/memory.ts';
import { pageEnd } from '../../system/page.ts';
import { writeContent } from './content.ts';
import type { ImageDirectory, PageSource } from './image.ts';
import { SEGMENTS, SEGMENTS_CONTENT, type SegmentPlan } from './plan/segments.ts';

/**
 * Number of a segment of which the attachment has been made already (SYSV_SHMEM_SKIP_FD,
 * criu/include/shmem.h).
 */
const ATTACHED = 0x7fff_ffff;
/**
 * How the first area of an attachment says that it is attached for writing (restore_mapping,
 * criu/pie/restorer.c).
 */
const ATTACH_FOR_WRITING = 4;

/**
 * What CRIU is told of an area of a System V shared memory segment. Of an area that is anonymous shared
 * memory as well, as its own dumps have it, it looks the segment up in its images of an IPC namespace, and
 * there are none. Any other it attaches by the number that is in the place of the descriptor (the same in
 * 3.17 and 4.1): the first area attaches the whole segment, the others are there then.
 */
export function attachedSegment({ segment, offsetBytes, prot }: Vma): {
  fd: bigint;
  shmid: bigint;
  prot: number;
} {
  if (segment === undefined) throw new Error('an area of a System V shared memory segment has no segment');
  const shmid = BigInt(segment.id);
  if (offsetBytes > 0) return { fd: BigInt(ATTACHED), shmid, prot };
  return { fd: shmid, shmid, prot: segment.isWritable ? prot | ATTACH_FOR_WRITING : prot };
}

/**
 * Writes `segments.json`, and the content of the segments, of a group that has any. Throws an
 * ImageWriteError.
 */
export function writeSegments(
  { segments }: Pick<ProcessGroup, 'segments'>,
  images: ImageDirectory,
  source: PageSource,
): void {
  if (segments.length === 0) return;
  const image = images.pages(SEGMENTS_CONTENT);
  const plans = segments.map(
    ({ runs, ...segment }): SegmentPlan => ({
      ...segment,
      // Whole pages are attached, whatever the size.
      ...writeContent(image, source, runs, pageEnd(segment.sizeBytes)),
    }),
  );
  writeFileSync(join(images.path, SEGMENTS), `${JSON.stringify(plans)}\n`, { flag: 'wx', mode: 0o600 });
}
