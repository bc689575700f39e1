/** `f_type` of file systems that are in memory alone (include/uapi/linux/magic.h, statfs(2)). */
export const TMPFS_MAGIC = 0x0102_1994;
export const RAMFS_MAGIC = 0x8584_58f6;
/** That of a /proc. */
export const PROC_SUPER_MAGIC = 0x9fa0;
/** That of ext2, ext3 and ext4. */
export const EXT_MAGIC = 0xef53;

/**
 * Whether a boot fills a file system anew with what it needs, so that what others had there would be wrong.
 */
export function isFilledAtBoot(path: string): boolean {
  return path === '/run' || path.startsWith('/run/');
}
