import { struct, u32 } from '../vmcore/view.ts';

/** `struct completion` (include/linux/completion.h); `done` counts what nobody has waited for yet. */
export const completionStruct = struct('completion', { done: u32 });
