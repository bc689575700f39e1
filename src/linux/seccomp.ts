import { bool, pointer, struct } from '../vmcore/view.ts';

/** `struct seccomp_filter` (kernel/seccomp.c): one of a chain, the newest first. */
export const seccompFilterStruct = struct('seccomp_filter', {
  /** SECCOMP_FILTER_FLAG_LOG. */
  log: bool,
  prev: pointer,
  prog: pointer,
  /** Another process is asked what becomes of a call (SECCOMP_FILTER_FLAG_NEW_LISTENER). */
  notif: pointer,
});

/** `task_struct.seccomp.mode` (include/uapi/linux/seccomp.h). */
export const seccompMode = { disabled: 0, strict: 1, filter: 2 } as const;
