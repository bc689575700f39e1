import { addressOf, struct, u32 } from '../vmcore/view.ts';

/** `struct pid_namespace` (include/linux/pid_namespace.h). */
export const pidNamespaceStruct = struct('pid_namespace', { idr: addressOf(), level: u32 });
