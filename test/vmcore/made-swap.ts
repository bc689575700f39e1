import { userDevice } from '../../src/linux/fs.ts';
import { SWAP_SPACE_PAGES } from '../../src/linux/swap.ts';
import { PAGE_SIZE } from '../../src/system/page.ts';
import type { StoredPages } from '../../src/vmcore/stored-pages.ts';
import type { MadeKernel } from './made-kernel.ts';

/** Numbers of page flags that differ between releases; a kernel's own enumerators tell which they are. */
const pageFlags = {
  ...{ locked: 0, writeback: 1, uptodate: 3, dirty: 4, swapcache: 10, swapbacked: 17, hwpoison: 21 },
} as const;

/** A swap area made by hand. */
export interface MadeSwap {
  readonly type?: number;
  readonly slots?: number;
  /** Directories below /sys, that of the device last. */
  readonly place?: readonly string[];
  readonly disk?: string;
  readonly partition?: number;
  /** PARTUUID; none for a whole disk. */
  readonly uuid?: string;
  readonly sectors?: number;
  /** Slot, number of slots and place on the device, in pages; at most one with another below it. */
  readonly extents?: readonly (readonly [number, number, number])[];
  /** A regular file with this name in the root directory. */
  readonly file?: string;
  /** Byte that the UUID of its file system is made of; 0 is none. */
  readonly fileSystemId?: number;
  /** Its magic number; that of ext4 if undefined. */
  readonly magic?: number;
  readonly flags?: number;
}

const USED = 0x3;
const BLOCK_DEVICE = 0x40;
const DEVICE = (253 << 20) | 2;
export const PCI_PLACE = ['devices', 'pci0000:00', '0000:00:05.0', 'virtio2', 'block', 'vda', 'vda2'];

function text(kernel: MadeKernel, words: string): bigint {
  const address = kernel.physicalToVirtual(kernel.tables.allocate());
  kernel.write(address, Buffer.from(`${words}\0`));
  return address;
}

/** A path of one name in the root file system: an open file of an inode. */
function openFile(kernel: MadeKernel, name: string, inode: bigint): bigint {
  const [root, dentry, mount, namespace] = ['dentry', 'dentry', 'mount', 'nsproxy'].map((kind) =>
    kernel.allocate(kind),
  ) as [bigint, bigint, bigint, bigint];
  kernel.set('dentry', root, 'd_parent', root);
  kernel.set('dentry', dentry, 'd_parent', root);
  kernel.set('dentry', dentry, 'd_name.len', name.length);
  kernel.set('dentry', dentry, 'd_name.name', text(kernel, name));
  kernel.set('mount', mount, 'mnt_parent', mount);
  kernel.set('mount', mount, 'mnt.mnt_root', root);
  kernel.set('mount', mount, 'mnt_ns', namespace);
  kernel.set('nsproxy', namespace, 'mnt_ns', namespace);
  kernel.symbols.set('init_nsproxy', namespace);
  const file = kernel.allocate('file');
  kernel.set('file', file, 'f_inode', inode);
  kernel.set('file', file, 'f_path.dentry', dentry);
  kernel.set('file', file, 'f_path.mnt', kernel.memberAddress('mount', mount, 'mnt'));
  return file;
}

function makeInode(
  kernel: MadeKernel,
  { file, slots = 64, fileSystemId = 7, magic = 0xef53 }: MadeSwap,
): bigint {
  const inode = kernel.allocate('inode');
  kernel.set('inode', inode, 'i_mode', file === undefined ? 0o60600 : 0o100600);
  kernel.set('inode', inode, 'i_rdev', file === undefined ? DEVICE : 0);
  kernel.set('inode', inode, 'i_flags', file === undefined ? 0 : 256);
  kernel.set('inode', inode, 'i_ino', 12);
  kernel.set('inode', inode, 'i_size', slots * PAGE_SIZE);
  const superBlock = kernel.allocate('super_block');
  kernel.set('super_block', superBlock, 's_dev', DEVICE);
  kernel.set('super_block', superBlock, 's_magic', magic);
  kernel.write(kernel.memberAddress('super_block', superBlock, 's_uuid'), Buffer.alloc(16, fileSystemId));
  kernel.set('inode', inode, 'i_sb', superBlock);
  return inode;
}

function makeDevice(kernel: MadeKernel, made: MadeSwap): bigint {
  const { place = PCI_PLACE, partition = 2, disk = 'vda', uuid = '1234abcd-02', sectors = 1024 } = made;
  const bdev = kernel.allocate('block_device');
  const gendisk = kernel.allocate('gendisk');
  kernel.write(kernel.memberAddress('gendisk', gendisk, 'disk_name'), Buffer.from(`${disk}\0`));
  kernel.set('block_device', bdev, 'bd_disk', gendisk);
  kernel.set('block_device', bdev, 'bd_nr_sectors', sectors);
  kernel.set('block_device', bdev, 'bd_start_sect', partition === 0 ? 0 : 2048);
  kernel.set('block_device', bdev, 'bd_dev', DEVICE);
  const isOld = kernel.hasMember('block_device', 'bd_partno');
  // Flags above the number are none of it.
  if (isOld) kernel.set('block_device', bdev, 'bd_partno', partition);
  else kernel.set('block_device', bdev, '__bd_flags.counter', partition | 0x200);
  if (partition !== 0) {
    const info = kernel.allocate('partition_meta_info');
    kernel.write(kernel.memberAddress('partition_meta_info', info, 'uuid'), Buffer.from(`${uuid}\0`));
    kernel.set('block_device', bdev, 'bd_meta_info', info);
  }
  let parent = 0n;
  for (const [i, name] of place.entries()) {
    const isLast = i === place.length - 1;
    const kobject = isLast
      ? kernel.memberAddress('block_device', bdev, 'bd_device.kobj')
      : kernel.allocate('kobject');
    kernel.set('kobject', kobject, 'name', text(kernel, name));
    kernel.set('kobject', kobject, 'parent', parent);
    parent = kobject;
  }
  return bdev;
}

function makeExtents(kernel: MadeKernel, info: bigint, extents: NonNullable<MadeSwap['extents']>): void {
  const nodes = extents.map(([slot, slots, block]) => {
    const extent = kernel.allocate('swap_extent');
    kernel.set('swap_extent', extent, 'start_page', slot);
    kernel.set('swap_extent', extent, 'nr_pages', slots);
    kernel.set('swap_extent', extent, 'start_block', block);
    return kernel.memberAddress('swap_extent', extent, 'rb_node');
  });
  const [first = 0n, second = 0n] = nodes;
  kernel.set('swap_info_struct', info, 'swap_extent_root.rb_node', first);
  if (second === 0n) return;
  kernel.set('rb_node', first, 'rb_right', second);
  kernel.set('rb_node', second, '__rb_parent_color', first);
}

/** An active swap area in a kernel made by hand, and what a test changes of it. */
export class MadeSwapArea {
  readonly kernel: MadeKernel;
  readonly type: number;
  readonly info: bigint;
  readonly bdev: bigint;
  readonly inode: bigint;
  readonly map: bigint;
  readonly zeromap: bigint;
  readonly spaces: bigint;

  constructor(kernel: MadeKernel, made: MadeSwap = {}) {
    const { type = 0, slots = 64, extents = [[0, slots, 0]], flags } = made;
    this.kernel = kernel;
    this.type = type;
    for (const name of Object.keys(pageFlags) as (keyof typeof pageFlags)[])
      kernel.enumerators.set(`PG_${name}`, pageFlags[name]);
    kernel.variable('nr_swapfiles', BigInt(type + 1));
    if (kernel.symbolMaybe('swap_info') === undefined) kernel.variable('swap_info', 0n);
    if (kernel.symbolMaybe('swapper_spaces') === undefined) kernel.variable('swapper_spaces', 0n);
    const info = kernel.allocate('swap_info_struct');
    this.info = info;
    this.map = kernel.physicalToVirtual(kernel.tables.allocate());
    this.zeromap = kernel.physicalToVirtual(kernel.tables.allocate());
    this.spaces = kernel.allocate('address_space');
    this.inode = makeInode(kernel, made);
    this.bdev = makeDevice(kernel, made);
    this.#put('swap_info', info);
    this.#put('swapper_spaces', this.spaces);
    const blockDevice = made.file === undefined ? BLOCK_DEVICE : 0;
    kernel.set('swap_info_struct', info, 'flags', flags ?? USED | blockDevice);
    kernel.set('swap_info_struct', info, 'type', type);
    kernel.set('swap_info_struct', info, 'max', slots);
    kernel.set('swap_info_struct', info, 'swap_map', this.map);
    kernel.set('swap_info_struct', info, 'bdev', this.bdev);
    kernel.set('swap_info_struct', info, 'swap_file', openFile(kernel, made.file ?? 'vda2', this.inode));
    if (kernel.hasMember('swap_info_struct', 'zeromap'))
      kernel.set('swap_info_struct', info, 'zeromap', this.zeromap);
    makeExtents(kernel, info, extents);
  }

  /** Number of the device, as stat(2) has it. */
  get device(): number {
    return userDevice(DEVICE);
  }

  /** The byte of a slot in the area's map. */
  use(slot: number, usage = 1): void {
    this.kernel.write(this.map + BigInt(slot), Uint8Array.of(usage));
  }

  /** Marks a slot as one of a page of zeros (6.12). */
  zero(slot: number): void {
    this.kernel.write(this.zeromap + BigInt(slot >>> 3), Uint8Array.of(1 << (slot & 7)));
  }

  /**
   * Puts a page into the swap cache; its frame comes back. Only slots below 64: one node.
   * @param first slot that the page says it is of, if not this one
   */
  cache(slot: number, fill: number, flags: readonly (keyof typeof pageFlags)[], first = slot): number {
    const { kernel } = this;
    const pfn = kernel.frame(fill);
    const page = kernel.pfnToPage(pfn);
    const word = ['swapcache' as const, 'swapbacked' as const, ...flags].reduce(
      (sum, name) => sum | (1n << BigInt(pageFlags[name])),
      0n,
    );
    kernel.set('page', page, 'flags', word);
    kernel.set('page', page, '_refcount', 2);
    kernel.set('page', page, 'private', (BigInt(this.type) << 58n) | BigInt(first));
    this.cacheEntry(slot, page);
    return pfn;
  }

  /** Puts any entry into the swap cache. */
  cacheEntry(slot: number, entry: bigint): void {
    const { kernel } = this;
    const head = kernel.memberAddress('address_space', this.spaces, 'i_pages.xa_head');
    let node = kernel.memory.u64(head) & ~3n;
    if (node === 0n) {
      node = kernel.allocate('xa_node');
      kernel.set('address_space', this.spaces, 'i_pages.xa_head', node | 2n);
    }
    const count = kernel.memberAddress('xa_node', node, 'count');
    kernel.write(count, Uint8Array.of(kernel.memory.read(count, 1)[0]! + 1));
    kernel.set('xa_node', node, `slots[${slot % SWAP_SPACE_PAGES}]`, entry);
  }

  #put(symbol: string, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.kernel.write(this.kernel.symbol(symbol) + BigInt(this.type * 8), bytes);
  }
}

/** Stored pages that are all there, each filled with the low byte of its page number. */
export const everythingStored: StoredPages = {
  has: () => true,
  problem: () => undefined,
  read: (address, to) => {
    to.fill(Math.floor(address / PAGE_SIZE) & 0xff);
  },
  write: () => undefined,
  close: () => undefined,
};
