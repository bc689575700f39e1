const MIB = 2 ** 20;

/** Kernel image, page descriptors and boot-time allocations of the crash kernel: reserved size minus MemTotal, with a margin. */
const KERNEL_BYTES = 48 * MIB;
/** User space of the crash world at its peak: Node.js with the bundle, the model of what is captured, CRIU, shell, page cache that cannot be dropped. */
const USER_SPACE_BYTES = 128 * MIB;
/** sizeof(struct page) for 4096 bytes. */
const PAGE_DESCRIPTOR_SHARE = 64 / 4096;

/**
 * Memory that the crash world needs, in bytes: either while the initramfs is unpacked (it is there twice) or while the first
 * range of old memory gets its page descriptors.
 * @param initramfsBytes size of the crash initramfs as loaded
 * @param runtimeBytes size of the squashfs in it, which stays in memory
 * @param firstRangeBytes size of the first range of old memory that is taken back
 */
export function neededBytes(initramfsBytes: number, runtimeBytes: number, firstRangeBytes: number): number {
  // The modules of the base archive unpack to about three times their size.
  const unpacking = initramfsBytes + runtimeBytes + 3 * (initramfsBytes - runtimeBytes);
  const running = runtimeBytes + USER_SPACE_BYTES + firstRangeBytes * PAGE_DESCRIPTOR_SHARE;
  return Math.ceil((KERNEL_BYTES + Math.max(unpacking, running)) / MIB) * MIB;
}
