import { struct, u16 } from '../vmcore/view.ts';

/** `struct io_context` (include/linux/iocontext.h). */
export const ioContextStruct = struct('io_context', { ioprio: u16 });
