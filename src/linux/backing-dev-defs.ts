import { addressOf, struct } from '../vmcore/view.ts';

/** `struct backing_dev_info` (include/linux/backing-dev-defs.h): what a super block writes to. */
export const backingDevInfoStruct = struct('backing_dev_info', { wb_list: addressOf('wb_list') });

/** `struct bdi_writeback`: a root one, and one for each cgroup that wrote. */
export const bdiWritebackStruct = struct('bdi_writeback', {
  bdi_node: addressOf('bdi_node'),
  b_dirty: addressOf('b_dirty'),
  b_io: addressOf('b_io'),
  b_more_io: addressOf('b_more_io'),
});
