import { type BigIntStats, readSync } from 'node:fs';
import type { UnwrittenFile } from '../../model/file.ts';
import type { PageRun } from '../../model/page-runs.ts';
import { PAGE_SIZE, pageEnd, pageStart } from '../../system/page.ts';
import { WriteBackRefusal } from './refusal.ts';

const SECTOR = 512;
/** Sectors of a block, which a file may have gained or lost for its attributes. */
const BLOCK_SECTORS = 8;

/** Old memory that can be looked at without a copy; `PhysicalMemory` of src/vmcore is one. */
export interface OldMemory {
  /** The bytes may be gone when `use` has ended. */
  withView<T>(physical: number, length: number, use: (bytes: Uint8Array) => T): T;
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

function* inMemory({ dirty, clean }: UnwrittenFile): Generator<PageRun> {
  yield* dirty;
  yield* clean;
}

/**
 * What the last page in memory has after the end of the file; undefined if it is not in memory or the file
 * ends with a page.
 */
function tailOf(file: UnwrittenFile, memory: OldMemory): Uint8Array | undefined {
  const { sizeBytes } = file.identity;
  const used = sizeBytes % PAGE_SIZE;
  if (used === 0) return undefined;
  const page = sizeBytes - used;
  const run = inMemory(file).find(
    ({ address, pages }) => address <= page && page < address + pages * PAGE_SIZE,
  );
  return run === undefined
    ? undefined
    : memory.withView(run.physical + (page - run.address) + used, PAGE_SIZE - used, (bytes) =>
        Buffer.from(bytes),
      );
}

/**
 * The kernel fills the last page with zeros when it cuts a file (truncate_inode_partial_folio), and every new
 * page. Zeros in memory after the end, where the disk has something, say that the file was cut there.
 */
function isCutInMemory(fd: number, file: UnwrittenFile, memory: OldMemory): boolean {
  const tail = tailOf(file, memory);
  if (tail === undefined || !isZero(tail)) return false;
  const onDisk = Buffer.alloc(tail.length);
  const length = readSync(fd, onDisk, 0, onDisk.length, file.identity.sizeBytes);
  return !isZero(onDisk.subarray(0, length));
}

/** Whether memory counts so many fewer blocks than the disk as the file lost bytes. */
function hasFreedBlocks({ identity, sectors }: UnwrittenFile, { size, blocks }: BigIntStats): boolean {
  if (sectors === undefined) return false;
  const lost = Math.floor((Number(size) - identity.sizeBytes) / SECTOR) - (BLOCK_SECTORS - 1);
  return Number(blocks) - sectors >= Math.max(BLOCK_SECTORS, lost);
}

/** Whether a page in memory lies wholly after the end. */
function hasPagesAfterEnd(file: UnwrittenFile): boolean {
  const end = pageEnd(file.identity.sizeBytes);
  return inMemory(file).some(({ address, pages }) => address + pages * PAGE_SIZE > end);
}

/** Whether the page with the last byte is in memory. */
function hasLastPage(file: UnwrittenFile): boolean {
  const last = file.identity.sizeBytes - 1;
  return inMemory(file).some(({ address, pages }) => address <= last && last < address + pages * PAGE_SIZE);
}

/** Whether every page from an offset to the end of the file is in memory. */
export function isInMemoryFrom(file: UnwrittenFile, offset: number): boolean {
  const runs = [...inMemory(file)].toSorted((a, b) => a.address - b.address);
  let at = pageStart(offset);
  for (const { address, pages } of runs) {
    if (address > at) break;
    at = Math.max(at, address + pages * PAGE_SIZE);
  }
  return at >= file.identity.sizeBytes;
}

/**
 * Asks a second witness where the disk has another size than the inode in memory: one bad bit in it must not
 * cut a file, or blow it up. A shorter file needs zeros after its end where the disk has none, or as many
 * fewer blocks, and no page after its end; a longer one needs its last page in memory, or more blocks than
 * the disk knows of. Throws a WriteBackRefusal if there is none.
 */
export function checkSize(fd: number, stats: BigIntStats, file: UnwrittenFile, memory: OldMemory): void {
  const { sizeBytes } = file.identity;
  const onDisk = Number(stats.size);
  if (onDisk === sizeBytes) return;
  const { sectors } = file;
  const isTold =
    sizeBytes < onDisk
      ? !hasPagesAfterEnd(file) && (isCutInMemory(fd, file, memory) || hasFreedBlocks(file, stats))
      : hasLastPage(file) || (sectors !== undefined && sectors > Number(stats.blocks));
  if (isTold) return;
  throw new WriteBackRefusal(
    `has ${onDisk} bytes on the disk and had ${sizeBytes} in memory, of which there is no second sign: nothing was written to it`,
  );
}

/** Whether what is in memory of a whole file ends where its size says. */
export function endsWithZeros(file: UnwrittenFile, memory: OldMemory): boolean {
  const tail = tailOf(file, memory);
  return tail === undefined || isZero(tail);
}
