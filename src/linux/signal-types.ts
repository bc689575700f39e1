import { addressOf, pointer, struct, u64 } from '../vmcore/view.ts';

/** `struct k_sigaction` (include/linux/signal_types.h). */
export const kSigactionStruct = struct('k_sigaction', {
  handler: pointer.at('sa.sa_handler'),
  flags: u64.at('sa.sa_flags'),
  restorer: pointer.at('sa.sa_restorer'),
  mask: u64.at('sa.sa_mask.sig[0]'),
});

/** `struct sigqueue`: a pending signal, with siginfo as user space sees it. */
export const sigqueueStruct = struct('sigqueue', { info: addressOf('info') });
