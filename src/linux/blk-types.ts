import { addressOf, pointer, struct, u8, u32, ulongNumber } from '../vmcore/view.ts';

/** `struct block_device` (include/linux/blk_types.h): a disk, or a partition of one. */
export const blockDeviceStruct = struct('block_device', {
  /** Of 512 bytes. */
  bd_start_sect: ulongNumber,
  bd_nr_sectors: ulongNumber,
  bd_dev: u32,
  // 6.10 made it the low byte of a word with flags
  partno: u8.at('bd_partno').or(u32.at('__bd_flags.counter')),
  bd_disk: pointer,
  /** NULL for a whole disk. */
  bd_meta_info: pointer,
  kobject: addressOf('bd_device.kobj'),
});
