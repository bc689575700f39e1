import type { PageRuns } from '../../../model/page-runs.ts';
import { PAGE_SIZE } from '../../../system/page.ts';
import type { PhysicalMemory } from '../../../vmcore/physical.ts';

const SECTOR = 512;
const ZEROS = Buffer.alloc(PAGE_SIZE);

/** What a file takes on its disk. */
export interface FileExtent {
  readonly sizeBytes: number;
  /** Sectors of 512 bytes; undefined if they are not known. */
  readonly sectors: number | undefined;
  /** `s_blocksize`. */
  readonly blockBytes: number;
}

/**
 * Whether blocks that have a place on a disk are at least `bytes`: those that are not all zeros, for one of
 * zeros can be a hole that was read.
 */
function areBlocksFor(
  bytes: number,
  memory: Pick<PhysicalMemory, 'withView'>,
  written: PageRuns,
  blockBytes: number,
): boolean {
  let missing = bytes;
  for (const { pages, physical } of written) {
    for (let page = 0; page < pages && missing > 0; page++) {
      memory.withView(physical + page * PAGE_SIZE, PAGE_SIZE, (content) => {
        for (let at = 0; at < PAGE_SIZE; at += blockBytes) {
          if (ZEROS.compare(content, at, at + blockBytes, 0, blockBytes) !== 0) missing -= blockBytes;
        }
      });
    }
  }
  return missing <= 0;
}

/**
 * Whether all that is not in memory of a file was never written and reads as zeros: then what is in memory
 * accounts for all that the file takes on its disk. False where that cannot be told. What a small file has
 * may be in its inode, and takes nothing then.
 *
 * @param written pages in memory that are as the disk has them; the others may have no block yet
 */
export function restIsHoles(
  memory: Pick<PhysicalMemory, 'withView'>,
  { sizeBytes, sectors, blockBytes }: FileExtent,
  written: PageRuns,
): boolean {
  if (sectors === undefined || blockBytes > PAGE_SIZE || sizeBytes < blockBytes) return false;
  return areBlocksFor(sectors * SECTOR, memory, written, blockBytes);
}
