import { struct, u32, u64 } from '../vmcore/view.ts';

/** `struct eventfd_ctx` (fs/eventfd.c), the private_data of an eventfd. */
export const eventfdContext = struct('eventfd_ctx', { count: u64, flags: u32 });

/** Bit of `flags`: a read takes one from the counter (include/uapi/linux/eventfd.h). */
export const EFD_SEMAPHORE = 1;
