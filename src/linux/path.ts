import { pointer, struct } from '../vmcore/view.ts';

/** `struct path` (include/linux/path.h): a mount and a dentry on it. */
export const pathStruct = struct('path', { mnt: pointer, dentry: pointer });
