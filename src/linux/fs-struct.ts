import { addressOf, s32, struct } from '../vmcore/view.ts';

/**
 * `struct fs_struct` (include/linux/fs_struct.h), `fs` of a task; `root` and `pwd` are a `struct path` each.
 */
export const fsStruct = struct('fs_struct', { umask: s32, root: addressOf(), pwd: addressOf() });
