import { fileType, typeOf } from '../../system/file-mode.ts';
import { ContainerError, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { blockDeviceStruct } from '../blk-types.ts';
import { gendiskStruct, partitionMetaInfoStruct } from '../blkdev.ts';
import { resolveAnyPath } from '../dcache.ts';
import {
  type FileSystemIdentity,
  fileStruct,
  fileSystemIdentity,
  inodeStruct,
  S_SWAPFILE,
  superBlockStruct,
  userDevice,
} from '../fs.ts';
import { kobjectPath } from '../kobject.ts';
import { rbTreeForEachEntry } from '../rbtree.ts';
import { MAX_SWAP_AREAS, SWP, type SwapInfo, swapExtentStruct, swapInfoStruct } from '../swap.ts';

/** Slots that lie in a row on a device; all in pages. */
export interface SwapExtent {
  readonly slot: number;
  readonly slots: number;
  /** Place of the first on the device. */
  readonly block: number;
}

/** A block device, by what it is found again by: its number may be another one after the panic. */
export interface SwapDevice {
  /** `vda2` */
  readonly name: string;
  /** Its number then, as stat(2) gives it. */
  readonly number: number;
  /** Of 512 bytes. */
  readonly sectors: number;
  /** 0 for a whole disk. */
  readonly partition: number;
  readonly startSector: number;
  /** PARTUUID in the partition table; empty if there is none. */
  readonly partitionUuid: string;
  /** Path of the device below /sys: where it is plugged in. */
  readonly place: string;
}

/** The file of a swap area. */
export interface SwapFile {
  readonly path: string;
  readonly fileSystem: FileSystemIdentity;
  readonly inode: number;
  readonly generation: number;
  readonly sizeBytes: number;
}

/** An active swap area of the kernel. */
export interface SwapArea {
  readonly type: number;
  /** For people. */
  readonly name: string;
  /** Slots, that of the header among them. */
  readonly slots: number;
  readonly info: SwapInfo;
  readonly device: SwapDevice;
  /** Undefined if the whole device is the area. */
  readonly file: SwapFile | undefined;
  /** In the order of their slots; together they are all slots. */
  readonly extents: readonly SwapExtent[];
}

const PAGE_SECTORS = 8;
/** Extents of a swap file: more than one of 4 TiB in pieces of 4 MiB has. */
const MAX_EXTENTS = 1 << 20;

/** Series of kernels whose swap areas were read in real guests. */
const TRIED = /^6\.12\./;

/** Why the swap areas of a kernel are not read, whatever they are on; undefined if they are. */
export function untriedSwap(release: string): string | undefined {
  if (TRIED.test(release)) return undefined;
  return `the swap areas of kernel ${release} are not read: this was tried with Linux 6.12 only`;
}

/** How many areas the kernel has had at a time, which is how many numbers it has given. */
export function swapAreaCount(kernel: Kernel): number {
  const count = kernel.memory.u32(kernel.symbol('nr_swapfiles'));
  if (count >= MAX_SWAP_AREAS)
    throw new ContainerError('swap_info', kernel.symbol('nr_swapfiles'), `has ${count} areas`);
  return count;
}

/**
 * The area of a number. Throws a VmcoreError, of which the message names the area, if there is none, or it is
 * damaged or of a kind that is not read.
 */
export function swapAreaAt(kernel: Kernel, type: number): SwapArea {
  const info = type < swapAreaCount(kernel) ? swapInfoAt(kernel, type) : undefined;
  if (info === undefined) throw new SwapError(`swap area ${type} is not in use`);
  const device = deviceOf(kernel, type, info);
  const file = fileOf(kernel, info, device);
  const name = file === undefined ? device.name : file.path;
  const problem = deviceProblem(device);
  if (problem !== undefined) throw new SwapError(`the swap area ${name} ${problem}`);
  return {
    ...{ type, name, info, device, file, slots: info.max },
    extents: extentsOf(kernel, info, device),
  };
}

/** Why what is in a swap area cannot be had: the message names the area. */
export class SwapError extends VmcoreError {
  override readonly name = 'SwapError';
}

function swapInfoAt(kernel: Kernel, type: number): SwapInfo | undefined {
  const address = kernel.memory.pointer(kernel.symbol('swap_info') + BigInt(type * 8));
  if (address === 0n) return undefined;
  const info = kernel.bind(swapInfoStruct).at(address);
  const flags = info.flags.low;
  if ((flags & SWP.used) === 0) return undefined;
  if ((flags & SWP.writeOk) === 0) throw new SwapError(`swap area ${type} was being switched on or off`);
  if (info.type !== type || info.max < 2 || info.swap_map === 0n)
    throw new SwapError(`swap area ${type} is damaged: it is of number ${info.type} and ${info.max} slots`);
  return info;
}

function deviceOf(kernel: Kernel, type: number, { bdev, flags }: SwapInfo): SwapDevice {
  if ((flags.low & SWP.fileSystem) !== 0 || bdev === 0n)
    throw new SwapError(
      `swap area ${type} is a file on a file system without a disk (a network's), which is not read`,
    );
  const view = kernel.bind(blockDeviceStruct).at(bdev);
  const { disk_name } = kernel.bind(gendiskStruct).at(view.bd_disk);
  const partition = view.partno & 0xff;
  const info = view.bd_meta_info;
  const place = kobjectPath(kernel, view.kobject);
  const name = place.slice(place.lastIndexOf('/') + 1);
  if (!name.startsWith(disk_name) || (partition === 0) !== (name === disk_name))
    throw new SwapError(`swap area ${type} is damaged: its device is ${name}, of the disk ${disk_name}`);
  return {
    ...{ name, partition, place },
    number: userDevice(view.bd_dev),
    sectors: view.bd_nr_sectors,
    startSector: view.bd_start_sect,
    partitionUuid: info === 0n ? '' : kernel.bind(partitionMetaInfoStruct).at(info).uuid,
  };
}

/** EXT4_SUPER_MAGIC and XFS_SUPER_MAGIC: file systems on one disk, whose FIEMAP gives places on that. */
const KNOWN_MAGIC: ReadonlySet<number> = new Set([0xef53, 0x5846_5342]);

function fileOf(kernel: Kernel, { swap_file, flags }: SwapInfo, device: SwapDevice): SwapFile | undefined {
  const file = kernel.bind(fileStruct).at(swap_file);
  const inode = kernel.bind(inodeStruct).at(file.f_inode);
  const isDevice = (flags.low & SWP.blockDevice) !== 0;
  const { path } = resolveAnyPath(kernel, file.f_mnt, file.f_dentry);
  const type = typeOf(inode.i_mode);
  if (isDevice) {
    if (type !== fileType.block || userDevice(inode.i_rdev) !== device.number)
      throw new SwapError(`the swap area ${path} is damaged: it is not ${device.name}`);
    return undefined;
  }
  if (type !== fileType.regular || (inode.i_flags & S_SWAPFILE) === 0)
    throw new SwapError(`the swap area ${path} is damaged: it is no swap file`);
  const { s_dev } = kernel.bind(superBlockStruct).at(inode.i_sb);
  // btrfs has files on several devices, and a number of its own.
  if (userDevice(s_dev) !== device.number)
    throw new SwapError(
      `the swap file ${path} is on a file system that is not of one disk (btrfs), which is not read`,
    );
  const fileSystem = fileSystemIdentity(kernel, inode.i_sb);
  if (!KNOWN_MAGIC.has(fileSystem.magic))
    throw new SwapError(`the swap file ${path} is on a file system that is neither ext4 nor xfs`);
  if (fileSystem.uuid === undefined)
    throw new SwapError(`the swap file ${path} is on a file system without a UUID, which is not read`);
  return {
    path,
    fileSystem,
    inode: inode.i_ino,
    generation: inode.i_generation,
    sizeBytes: inode.i_size,
  };
}

/** By what virtual devices are called; the word that people know them by. */
const VIRTUAL: readonly (readonly [RegExp, string])[] = [
  [/^zram\d/, 'is in compressed memory (zram), which is not read'],
  [/^dm-\d/, 'is on the device mapper (LVM, encryption), which is not read'],
  [/^md\d/, 'is on a RAID of the kernel (md), which is not read'],
];

/**
 * Where a disk is plugged in, if it is the only one there: on a controller with several, their numbers may be
 * others at each boot, and so may those of the namespaces of an NVMe controller. Virtio has a function of the
 * bus for each disk.
 */
export function certainPlace({
  place,
  partition,
  name,
}: Pick<SwapDevice, 'place' | 'partition' | 'name'>): string | undefined {
  const disk = partition === 0 ? place : place.slice(0, -(name.length + 1));
  const virtio = /^(.*\/[\da-f]+:[\da-f]+:[\da-f]+\.[\da-f])\/virtio\d+\/block\/[^/]+$/.exec(disk);
  if (virtio !== null) return `${virtio[1]}/virtio ${partition}`;
  const nvme = /^(.*\/[\da-f]+:[\da-f]+:[\da-f]+\.[\da-f])\/nvme\/nvme\d+\/nvme\d+n\d+$/.exec(disk);
  return nvme === null ? undefined : `${nvme[1]}/nvme ${partition}`;
}

/** An id that no table was given. */
const NO_ID = /^(0{8}-.*)?$/;

/** PARTUUID of a partition, in lower case; undefined if it has none that tells it from others. */
export function certainId({ partitionUuid }: Pick<SwapDevice, 'partitionUuid'>): string | undefined {
  return NO_ID.test(partitionUuid) ? undefined : partitionUuid.toLowerCase();
}

/** Of a device that has neither of both, after its name. */
export const NOT_TOLD_APART =
  'cannot be told from other disks after a panic: it is no partition with an id, nor a virtio or NVMe disk';

function deviceProblem(device: SwapDevice): string | undefined {
  const { name, place, sectors } = device;
  const isVirtual = !place.startsWith('/devices/') || place.startsWith('/devices/virtual/');
  if (isVirtual) {
    const known = VIRTUAL.find(([pattern]) => pattern.test(name));
    return known?.[1] ?? `is on ${name}, which is no disk of this machine`;
  }
  if (sectors <= 0) return `is on ${name}, which has no size`;
  const isKnown = certainId(device) !== undefined || certainPlace(device) !== undefined;
  return isKnown ? undefined : `is on ${name}, which ${NOT_TOLD_APART}`;
}

function extentsOf(kernel: Kernel, info: SwapInfo, { name, sectors }: SwapDevice): SwapExtent[] {
  const extents: SwapExtent[] = [];
  let next = 0;
  const pages = Math.floor(sectors / PAGE_SECTORS);
  const Extent = kernel.bind(swapExtentStruct);
  for (const extent of rbTreeForEachEntry(kernel, info.swap_extent_root, Extent, 'rb_node', MAX_EXTENTS)) {
    const { start_page: slot, nr_pages: slots, start_block: block } = extent;
    if (slot !== next || slots < 1 || block + slots > pages)
      throw new SwapError(`the swap area on ${name} is damaged: slots from ${slot} on are at page ${block}`);
    extents.push({ slot, slots, block });
    next += slots;
  }
  if (next !== info.max)
    throw new SwapError(
      `the swap area on ${name} is damaged: it has ${info.max} slots, and places for ${next}`,
    );
  return extents;
}
