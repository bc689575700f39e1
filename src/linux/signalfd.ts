import { struct, u64 } from '../vmcore/view.ts';

/** `struct signalfd_ctx` (fs/signalfd.c). The mask holds the signals that are NOT accepted. */
export const signalfdContext = struct('signalfd_ctx', { sigmask: u64.at('sigmask.sig[0]') });
