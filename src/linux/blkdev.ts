import { cstring, struct } from '../vmcore/view.ts';

/** `struct gendisk` (include/linux/blkdev.h). */
export const gendiskStruct = struct('gendisk', { disk_name: cstring });

/** `struct partition_meta_info`: what the partition table says of a partition. */
export const partitionMetaInfoStruct = struct('partition_meta_info', {
  /** PARTUUID, as text. */
  uuid: cstring,
});
