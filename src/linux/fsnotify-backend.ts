import { addressOf, pointer, struct, u32 } from '../vmcore/view.ts';

/** `struct fsnotify_group` (include/linux/fsnotify_backend.h), the private_data of an inotify file. */
export const fsnotifyGroupStruct = struct('fsnotify_group', {
  q_len: u32,
  marks_list: addressOf('marks_list'),
});

/**
 * What a mark is attached to; before 6.9 `obj` points to the inode's `i_fsnotify_marks`, since then to the
 * inode.
 */
export const fsnotifyMarkConnectorStruct = struct('fsnotify_mark_connector', {
  obj: pointer,
  list: addressOf('list'),
});
