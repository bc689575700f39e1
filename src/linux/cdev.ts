import { pointer, struct } from '../vmcore/view.ts';

/** `struct cdev` (include/linux/cdev.h): a character device, by its driver. */
export const cdevStruct = struct('cdev', { ops: pointer });
