import { inodeTimes, sectorsOf, superBlockStruct } from '../../../linux/fs.ts';
import type { FileToMake, GhostFile } from '../../../model/file.ts';
import { listedRuns, type PageRun, type PageRuns } from '../../../model/page-runs.ts';
import { fileType, typeOf } from '../../../system/file-mode.ts';
import { PAGE_SIZE, pageEnd } from '../../../system/page.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import type { Disks } from '../../file-capture.ts';
import { attributesOf, isMemoryFileSystem, type NamedFile } from '../named.ts';
import { FileRefusal } from '../refusal.ts';
import { contentOfCopy } from './copy-on-disk.ts';
import { type FileExtent, restIsHoles } from './holes.ts';
import { type PageCache, pageCache } from './page-cache.ts';

const NONE = listedRuns([]);

/** Runs without what lies at or after `sizeBytes`; the last page may reach over it. */
export function within(runs: PageRuns, sizeBytes: number): PageRuns {
  const end = pageEnd(sizeBytes);
  function* inside(): Generator<PageRun> {
    for (const { address, pages, physical } of runs) {
      const kept = Math.min(pages, (end - address) / PAGE_SIZE);
      if (kept > 0) yield { address, pages: kept, physical };
    }
  }
  const pages = inside().reduce((sum, run) => sum + run.pages, 0);
  return { pages, [Symbol.iterator]: inside };
}

function cacheOf(kernel: Kernel, file: NamedFile): PageCache {
  const isShmem = isMemoryFileSystem(file.fileSystem.name);
  const cache = pageCache(kernel, file.inode.i_mapping, isShmem);
  const { lost } = cache;
  if (lost !== undefined) {
    throw new FileRefusal(`has ${file.path} open, of which ${lost.pages} pages are in swap: ${lost.why}`);
  }
  return cache;
}

function extentOf(kernel: Kernel, { inode, fileSystem }: NamedFile): FileExtent {
  return {
    sizeBytes: inode.i_size,
    sectors: sectorsOf(inode, fileSystem),
    blockBytes: kernel.bind(superBlockStruct).at(inode.i_sb).s_blocksize,
  };
}

/**
 * Content of a deleted regular file: of one on a disk every page must be in memory, be a hole, or be on the
 * disk in a copy of the file. Throws a FileRefusal if that is not so, a ContainerError if the page cache is
 * damaged.
 */
function deletedContent(
  kernel: Kernel,
  file: NamedFile,
  disks: Disks | undefined,
): Pick<GhostFile, 'runs' | 'onDisk'> {
  const { inode, path } = file;
  const cache = cacheOf(kernel, file);
  const runs = within(cache.runs, inode.i_size);
  if (!file.fileSystem.onDisk) return { runs };
  if (cache.partial > 0) {
    throw new FileRefusal(
      `has the deleted file ${path} open, of which ${cache.partial} pages are valid only in part`,
    );
  }
  const needed = Math.ceil(inode.i_size / PAGE_SIZE);
  if (runs.pages >= needed || restIsHoles(kernel.physical, extentOf(kernel, file), cache.written)) {
    return { runs };
  }
  const { modifiedNanoseconds } = inodeTimes(kernel, inode.address);
  const deleted = { path, identity: file.identity, modifiedNanoseconds, runs };
  const onDisk = disks === undefined ? undefined : contentOfCopy(kernel.physical, deleted, disks);
  if (onDisk !== undefined) return { runs, onDisk };
  const lacks = `${needed - runs.pages} of ${needed} pages are on the disk only`;
  // The disks of a living system are not looked at: others change what is at a path meanwhile.
  if (kernel.isAlive)
    throw new FileRefusal(
      `has the deleted file ${path} open, of which ${lacks}: whether there is a copy is seen after a panic`,
      'unseen',
    );
  throw new FileRefusal(`has the deleted file ${path} open, of which ${lacks}`);
}

/** What is needed to have a deleted file again. Throws a FileRefusal if its content is not complete. */
export function ghostOf(kernel: Kernel, file: NamedFile, id: number, disks?: Disks): GhostFile {
  const type = typeOf(file.inode.i_mode);
  if (type === fileType.symlink || type === fileType.socket || type === fileType.block) {
    throw new FileRefusal(`has the deleted file ${file.path} open, which is neither a file nor a directory`);
  }
  const content = type === fileType.regular ? deletedContent(kernel, file, disks) : { runs: NONE };
  const { accessedMicroseconds, modifiedMicroseconds } = inodeTimes(kernel, file.inode.address);
  return { id, identity: file.identity, accessedMicroseconds, modifiedMicroseconds, ...content };
}

/** A file of a memory file system, to be made again under its name. Throws as `ghostOf`. */
export function fileToMake(kernel: Kernel, file: NamedFile): FileToMake {
  const type = typeOf(file.inode.i_mode);
  if (type !== fileType.regular && type !== fileType.fifo) {
    const what = type === fileType.symlink ? 'symbolic link' : 'device node';
    throw new FileRefusal(`has ${file.path} open, a ${what} on ${file.fileSystem.name}`);
  }
  if (file.inode.i_nlink > 1) {
    throw new FileRefusal(`has ${file.path} open, which has more than one name on ${file.fileSystem.name}`);
  }
  const runs = type === fileType.regular ? within(cacheOf(kernel, file).runs, file.inode.i_size) : NONE;
  const { accessedMicroseconds, modifiedMicroseconds } = inodeTimes(kernel, file.inode.address);
  const attributes = attributesOf(kernel, file.fileSystem, file.inode.address);
  const { path, identity } = file;
  return { path, identity, accessedMicroseconds, modifiedMicroseconds, attributes, runs };
}
