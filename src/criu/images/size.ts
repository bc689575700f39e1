import type { ContentOnDisk, GroupFiles, OpenFile } from '../../model/file.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { AddressSpace } from '../../model/memory.ts';
import type { PageRuns } from '../../model/page-runs.ts';
import { GROUP_FILES, PROCESS_FILES, THREAD_BYTES } from '../../system/image-files.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import { storeKey } from './pagemap.ts';
import { isPrivate } from './vma.ts';

/** What images take of a file system. */
export interface ImagesSize {
  readonly bytes: number;
  /** What of it is sure: the pages themselves. */
  readonly leastBytes: number;
  /** Files and directories. */
  readonly files: number;
}

/**
 * What is written of a page or a run of pages besides its content, at most: an entry of a pagemap or of a
 * ghost file (length, address, number of pages, flags) where no two pages lie side by side.
 */
const ENTRY_BYTES = 24;
/** A descriptor with its file, an area, a thread: none of their entries is longer, but for paths. */
const PIECE_BYTES = 512;
/** How often a path is among the images, at most: the file, its check, its plan, with its escapes. */
const PATH_COPIES = 6;
/** Of a file, if it is a small one. */
const FILE_BYTES = 2 * PAGE_SIZE;

function sum<T>(items: Iterable<T>, of: (item: T) => number): number {
  let total = 0;
  for (const item of items) total += of(item);
  return total;
}

function bytesOf({ pages }: PageRuns): number {
  return pages * (PAGE_SIZE + ENTRY_BYTES);
}

function onDiskBytes(onDisk: ContentOnDisk | undefined): number {
  return sum(onDisk?.ranges ?? [], ({ length }) => length + ENTRY_BYTES);
}

/** The pages that are stored with a process. */
function privateBytes({ vmas, overrides = [] }: AddressSpace): number {
  const own = sum(vmas.filter(isPrivate), ({ runs }) => bytesOf(runs));
  return own + sum(overrides, ({ bytes }) => bytes.length + ENTRY_BYTES);
}

/** What waits in a socket. */
function queueBytes(file: OpenFile): number {
  if (file.type === 'unix') return sum(file.queue, ({ bytes }) => bytes);
  if (file.type !== 'inet' || file.connection === undefined) return 0;
  const { unread, unacknowledged } = file.connection;
  return unread.bytes + unacknowledged.bytes;
}

function pathBytes(file: OpenFile): number {
  return 'path' in file ? PATH_COPIES * Buffer.byteLength(file.path) : 0;
}

function ringBytes(file: OpenFile): number {
  return file.type === 'io-uring' ? bytesOf(file.rings) + bytesOf(file.entries) : 0;
}

/** Whether it has a file of its own among the images: a connection with its queues, the memory of a ring. */
function hasOwnImage(file: OpenFile): boolean {
  return file.type === 'io-uring' || (file.type === 'inet' && file.connection !== undefined);
}

function contentBytes({ ghosts, filesToMake, pipes, files }: GroupFiles): number {
  return (
    sum(ghosts, ({ runs, onDisk }) => bytesOf(runs) + onDiskBytes(onDisk)) +
    sum(filesToMake, ({ runs }) => bytesOf(runs)) +
    sum(pipes, ({ dataBytes }) => dataBytes) +
    sum(files, queueBytes) +
    sum(files, ringBytes)
  );
}

/**
 * What `writeImages` would write for a group, told from the model alone: no page is looked at. What is
 * written besides the pages is taken as more than it is: by some thousandths, of pages side by side.
 */
export function imagesSize(group: ProcessGroup): ImagesSize {
  const { processes, sharedMemory, segments, messageQueues, files } = group;
  const spaces = processes.flatMap(({ memory }) => memory ?? []);
  const stored = new Map(spaces.map((memory) => [storeKey(memory) ?? memory, memory]));
  const threads = sum(processes, (process) => process.threads.length);
  const areas = sum(spaces, ({ vmas }) => vmas.length);
  const descriptors = sum(files.tables, (table) => table.descriptors.length);
  const fileCount =
    GROUP_FILES +
    PROCESS_FILES * processes.length +
    threads +
    2 * sharedMemory.length +
    files.ghosts.length +
    files.filesToMake.length +
    files.files.filter(hasOwnImage).length;
  const shared = [...sharedMemory, ...segments];
  const pages =
    sum(stored.values(), ({ vmas }) => sum(vmas.filter(isPrivate), ({ runs }) => runs.pages)) +
    sum(shared, ({ runs }) => runs.pages);
  return {
    files: fileCount,
    leastBytes: pages * PAGE_SIZE,
    bytes:
      sum(stored.values(), privateBytes) +
      sum(shared, ({ runs }) => bytesOf(runs)) +
      sum(messageQueues, ({ messages }) => sum(messages, ({ bytes }) => bytes)) +
      contentBytes(files) +
      THREAD_BYTES * threads +
      sum(files.files, pathBytes) +
      PIECE_BYTES * (areas + descriptors + files.files.length) +
      FILE_BYTES * fileCount,
  };
}
