import { pointer, struct } from '../vmcore/view.ts';

/** `struct cgroup_file_ctx` (kernel/cgroup/cgroup-internal.h): what an open file of a cgroup has. */
export const cgroupFileCtxStruct = struct('cgroup_file_ctx', { trigger: pointer.at('psi.trigger') });
