import { readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { backingDevInfoStruct, bdiWritebackStruct } from './backing-dev-defs.ts';
import { fileSystemOf, inodeStruct, inodeTimes, SB_RDONLY, superBlockStruct } from './fs.ts';
import { listEmpty, listReadEntries, listVisit } from './list.ts';

/** Inodes and writeback structures that one list can hold in a sound machine. */
const MAX_INODES = 1 << 24;

/**
 * Addresses of structures that a list or several hold, and what is wrong with the lists: of a damaged one
 * something may be missing.
 */
export interface Found {
  readonly addresses: ReadonlySet<bigint>;
  readonly damage: readonly string[];
}

/** The super blocks of file systems on disks that are mounted for writing. */
export function writableDisks(kernel: Kernel): Found {
  const all = listReadEntries(kernel, kernel.symbol('super_blocks'), kernel.bind(superBlockStruct), 's_list');
  const damage = all.damage === undefined ? [] : [all.damage];
  const addresses = new Set<bigint>();
  for (const sb of all.entries) {
    try {
      const isWritable = sb.s_root !== 0n && !sb.s_flags.has(SB_RDONLY);
      if (isWritable && fileSystemOf(kernel, sb.address).onDisk) addresses.add(sb.address);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      damage.push(error.message);
    }
  }
  return { addresses, damage };
}

/**
 * The inodes of a super block that have something that the disk may not have: those on the lists of dirty
 * inodes of its device, and those with pages being written.
 */
export function unwrittenInodes(kernel: Kernel, superBlock: bigint): Found {
  const Inode = kernel.bind(inodeStruct);
  const addresses = new Set<bigint>();
  const damage: string[] = [];
  const add = (head: bigint, member: 'i_io_list' | 'i_wb_list') => {
    const problem = listVisit(kernel, head, Inode, member, MAX_INODES, (inode) => {
      if (readable(() => inode.i_sb) === superBlock) addresses.add(inode.address);
    });
    if (problem !== undefined) damage.push(problem);
  };
  const { s_bdi, s_inodes_wb } = kernel.bind(superBlockStruct).at(superBlock);
  add(s_inodes_wb, 'i_wb_list');
  const { wb_list } = kernel.bind(backingDevInfoStruct).at(s_bdi);
  const devices = listReadEntries(kernel, wb_list, kernel.bind(bdiWritebackStruct), 'bdi_node', MAX_INODES);
  if (devices.damage !== undefined) damage.push(devices.damage);
  for (const wb of devices.entries) {
    for (const head of [wb.b_dirty, wb.b_io, wb.b_more_io]) add(head, 'i_io_list');
  }
  return { addresses, damage };
}

/**
 * The inodes in memory that were changed after a time of CLOCK_REALTIME, in seconds. Writeback is done with
 * an inode as soon as its pages are on the disk; its size and its blocks may still wait for the next commit
 * of the journal.
 */
export function recentlyChangedInodes(kernel: Kernel, superBlock: bigint, sinceSeconds: number): Found {
  const { s_inodes } = kernel.bind(superBlockStruct).at(superBlock);
  const addresses = new Set<bigint>();
  const Inode = kernel.bind(inodeStruct);
  const damage = listVisit(kernel, s_inodes, Inode, 'i_sb_list', MAX_INODES, ({ address }) => {
    const changed = readable(() => inodeTimes(kernel, address).changedSeconds) ?? 0;
    if (changed > sinceSeconds) addresses.add(address);
  });
  return { addresses, damage: damage === undefined ? [] : [damage] };
}

/**
 * Bits of `inode.i_state` of an inode that is to be written (I_DIRTY_*). 6.12 gave them other places, and the
 * member 32 bits instead of 64.
 */
export const dirtyBefore612 = { sync: 1 << 0, datasync: 1 << 1, pages: 1 << 2 } as const;
export const dirtySince612 = { sync: 1 << 3, datasync: 1 << 4, pages: 1 << 5 } as const;

function dirtyMask(kernel: Kernel): number {
  const isSince612 = kernel.layouts.member('inode', 'i_state')?.sizeBytes === 4;
  const { sync, datasync, pages } = isSince612 ? dirtySince612 : dirtyBefore612;
  return sync | datasync | pages;
}

/**
 * Whether the kernel had nothing left to write of an inode, by the inode itself: its state, and that it is on
 * no list of dirty ones.
 */
export function isWritten(kernel: Kernel, inode: bigint): boolean {
  const { i_state, i_io_list, i_wb_list } = kernel.bind(inodeStruct).at(inode);
  return (
    (i_state.low & dirtyMask(kernel)) === 0 && listEmpty(kernel, i_io_list) && listEmpty(kernel, i_wb_list)
  );
}
