import { type Inode, inodeStruct } from '../../src/linux/fs.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { MadeKernel } from './made-kernel.ts';

/**
 * `page->flags` of node 1 and zone Normal with NODES_SHIFT 10: node from bit 54 on, zone in bits 52 and 53.
 */
const NODE_1 = 0x57_ffff_c000_0000n;
/** Any numbers: a kernel's own enumerators tell which they are. */
const pageFlags = { locked: 0, writeback: 1, uptodate: 3, dirty: 4 } as const;

/** A page of a file: its place, the byte that fills it, and the names of its flags. */
export interface MadePage {
  readonly index: number;
  readonly fill: number;
  readonly flags: readonly (keyof typeof pageFlags)[];
}

export interface MadeFile {
  readonly inode: Inode;
  /** Address of an open `struct file` of it. */
  readonly file: bigint;
  /** Frame numbers of its pages, as they were given. */
  readonly frames: readonly number[];
}

/**
 * A regular file of eight pages, of which these are in the page cache (places 0 to 63), in memory of the
 * second node.
 */
export function makeFile(kernel: MadeKernel, fileSystem: string, pages: readonly MadePage[]): MadeFile {
  for (const name of ['uptodate', 'dirty', 'writeback'] as const)
    kernel.enumerators.set(`PG_${name}`, pageFlags[name]);
  const around = kernel.allocate('shmem_inode_info');
  const inode = kernel.memberAddress('shmem_inode_info', around, 'vfs_inode');
  const mapping = kernel.memberAddress('inode', inode, 'i_data');
  kernel.set('inode', inode, 'i_mapping', mapping);
  kernel.set('inode', inode, 'i_mode', 0o100600);
  kernel.set('inode', inode, 'i_size', 8 * PAGE_SIZE);
  kernel.set('inode', inode, 'i_sb', makeSuperBlock(kernel, fileSystem));
  kernel.set('address_space', mapping, 'host', inode);
  const file = kernel.allocate('file');
  kernel.set('file', file, 'f_mapping', mapping);
  kernel.set('file', file, 'f_inode', inode);
  const node = kernel.allocate('xa_node');
  kernel.set('address_space', mapping, 'nrpages', pages.length);
  kernel.set('address_space', mapping, 'i_pages.xa_head', node | 2n);
  kernel.set('xa_node', node, 'count', pages.length);
  const frames = pages.map((page) => makePage(kernel, mapping, node, page));
  return { inode: kernel.bind(inodeStruct).at(inode), file, frames };
}

function makePage(kernel: MadeKernel, mapping: bigint, node: bigint, made: MadePage): number {
  const pfn = kernel.frame(made.fill);
  const page = kernel.pfnToPage(pfn);
  kernel.set('xa_node', node, `slots[${made.index}]`, page);
  kernel.set('page', page, 'mapping', mapping);
  kernel.set('page', page, 'index', made.index);
  kernel.set(
    'page',
    page,
    'flags',
    made.flags.reduce((word, name) => word | (1n << BigInt(pageFlags[name])), NODE_1),
  );
  return pfn;
}

function makeSuperBlock(kernel: MadeKernel, fileSystem: string): bigint {
  const superBlock = kernel.allocate('super_block');
  const type = kernel.allocate('file_system_type');
  const name = kernel.physicalToVirtual(kernel.tables.allocate());
  kernel.write(name, Buffer.from(`${fileSystem}\0`));
  kernel.set('file_system_type', type, 'name', name);
  kernel.set('super_block', superBlock, 's_type', type);
  return superBlock;
}
