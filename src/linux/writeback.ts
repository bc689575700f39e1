import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct } from '../vmcore/view.ts';
import { fileSystemOf, inodeTimes, SB_RDONLY, superBlockStruct } from './fs.ts';
import { listForEachEntry } from './list.ts';

const superBlockWriteback = struct('super_block', {
  s_bdi: pointer,
  s_inodes: addressOf('s_inodes'),
  s_inodes_wb: addressOf('s_inodes_wb'),
});
const backingDevInfo = struct('backing_dev_info', { wb_list: addressOf('wb_list') });

/** `struct bdi_writeback` (include/linux/backing-dev-defs.h): a root one, and one for each cgroup that wrote. */
const bdiWriteback = struct('bdi_writeback', {
  bdi_node: addressOf('bdi_node'),
  b_dirty: addressOf('b_dirty'),
  b_io: addressOf('b_io'),
  b_more_io: addressOf('b_more_io'),
});

const inodeLists = struct('inode', {
  i_sb: pointer,
  i_io_list: addressOf('i_io_list'),
  i_wb_list: addressOf('i_wb_list'),
  i_sb_list: addressOf('i_sb_list'),
});

/** Inodes and writeback structures that one list can hold in a sound machine. */
const MAX_INODES = 1 << 24;

/** Addresses of the super blocks of file systems on disks that are mounted for writing. */
export function writableDisks(kernel: Kernel): bigint[] {
  const all = listForEachEntry(
    kernel,
    kernel.symbol('super_blocks'),
    kernel.bind(superBlockStruct),
    's_list',
  );
  return [...all]
    .filter((sb) => sb.s_root !== 0n && (sb.s_flags & SB_RDONLY) === 0n)
    .map(({ address }) => address)
    .filter((address) => fileSystemOf(kernel, address).onDisk);
}

/**
 * Addresses of the inodes of a super block that have something that the disk may not have: those on the lists of dirty inodes
 * of its device, and those with pages being written. Throws a ContainerError if a list is damaged.
 */
export function unwrittenInodes(kernel: Kernel, superBlock: bigint): Set<bigint> {
  const Inode = kernel.bind(inodeLists);
  const found = new Set<bigint>();
  const add = (head: bigint, member: 'i_io_list' | 'i_wb_list') => {
    for (const inode of listForEachEntry(kernel, head, Inode, member, MAX_INODES)) {
      if (inode.i_sb === superBlock) found.add(inode.address);
    }
  };
  const { s_bdi, s_inodes_wb } = kernel.bind(superBlockWriteback).at(superBlock);
  const { wb_list } = kernel.bind(backingDevInfo).at(s_bdi);
  for (const wb of listForEachEntry(kernel, wb_list, kernel.bind(bdiWriteback), 'bdi_node', MAX_INODES)) {
    for (const head of [wb.b_dirty, wb.b_io, wb.b_more_io]) add(head, 'i_io_list');
  }
  add(s_inodes_wb, 'i_wb_list');
  return found;
}

/**
 * Addresses of the inodes in memory that were changed after a time of CLOCK_REALTIME, in seconds. Writeback is done with an inode
 * as soon as its pages are on the disk; its size and its blocks may still wait for the next commit of the journal. Throws a
 * ContainerError if the list is damaged.
 */
export function recentlyChangedInodes(kernel: Kernel, superBlock: bigint, sinceSeconds: number): Set<bigint> {
  const { s_inodes } = kernel.bind(superBlockWriteback).at(superBlock);
  const found = new Set<bigint>();
  for (const inode of listForEachEntry(kernel, s_inodes, kernel.bind(inodeLists), 'i_sb_list', MAX_INODES)) {
    if (inodeTimes(kernel, inode.address).changedSeconds > sinceSeconds) found.add(inode.address);
  }
  return found;
}
