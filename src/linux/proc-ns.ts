import { pointer, struct } from '../vmcore/view.ts';

/** `struct proc_ns_operations` (include/linux/proc_ns.h); `name` is `net`, `mnt` … */
export const procNsOperationsStruct = struct('proc_ns_operations', { name: pointer });
