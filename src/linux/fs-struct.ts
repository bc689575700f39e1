import { addressOf, s32, struct } from '../vmcore/view.ts';

/**
 * `struct fs_struct` (include/linux/fs_struct.h), `fs` of a task. `users` counts tasks; `root` and `pwd` are
 * a `struct path` each.
 */
export const fsStruct = struct('fs_struct', { users: s32, umask: s32, root: addressOf(), pwd: addressOf() });
