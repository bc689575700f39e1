import { pointer, struct } from '../../../vmcore/view.ts';

/** `struct inactive_task_frame` (arch/x86/include/asm/switch_to.h): what `thread.sp` of a task points to. */
export const inactiveTaskFrameStruct = struct('inactive_task_frame', { bp: pointer, ret_addr: pointer });
