import { existsSync, type StatsFs, statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { EXT_MAGIC } from './file-systems.ts';

/** What can be written to a file system. */
export interface FreeSpace {
  /** The directory that was asked for or, if that is not there yet, the nearest one above it that is. */
  readonly directory: string;
  /** What root can write. */
  readonly bytes: number;
  /** Files that can be made; undefined where there is no limit to them but the bytes. */
  readonly files: number | undefined;
  /** `f_type` of statfs(2). */
  readonly type: number;
}

/** What statfs(2) says, as far as it counts here. */
type Statfs = Pick<StatsFs, 'type' | 'bsize' | 'blocks' | 'bfree' | 'bavail' | 'files' | 'ffree'>;

/**
 * Blocks that ext4 keeps for itself, from root as well: 2 % of all, at most these
 * (ext4_calculate_resv_clusters(), fs/ext4/super.c).
 */
const EXT4_OWN = { share: 0.02, blocks: 4096 };

/**
 * What root can write to a file system. ext2, ext3 and ext4 keep blocks for root, which `f_bavail` leaves out
 * (ext4_statfs, fs/ext4/super.c). On others root gets no more than anybody, and what `f_bfree` has besides is
 * the file system's own (btrfs_statfs, fs/btrfs/super.c).
 */
export function freeOf({
  type,
  bsize,
  blocks: all,
  bfree,
  bavail,
  files,
  ffree,
}: Statfs): Omit<FreeSpace, 'directory'> {
  const own = Math.min(Math.ceil(all * EXT4_OWN.share), EXT4_OWN.blocks);
  const blocks = type === EXT_MAGIC ? Math.max(0, bfree - own) : bavail;
  // A file system that makes inodes as it needs them says that it has none, and none free.
  return { bytes: blocks * bsize, files: files === 0 ? undefined : ffree, type };
}

/** What is free where a directory is, or would be made. Throws the error of statfs(2). */
export function freeSpace(directory: string): FreeSpace {
  let existing = directory;
  while (!existsSync(existing)) existing = dirname(existing);
  return { directory: existing, ...freeOf(statfsSync(existing)) };
}

/** What the files of a file system take, in bytes; 0 where that is not counted (a tmpfs without a limit). */
export function usedBytes({ bsize, blocks, bfree }: Pick<Statfs, 'bsize' | 'blocks' | 'bfree'>): number {
  return Math.max(0, blocks - bfree) * bsize;
}
