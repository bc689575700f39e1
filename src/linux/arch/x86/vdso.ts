import { pointer, struct, u64, ulongNumber } from '../../../vmcore/view.ts';

/** `struct vdso_image` (arch/x86/include/asm/vdso.h): the pages that processes map as `[vdso]`. */
export const vdsoImageStruct = struct('vdso_image', { data: pointer, size: ulongNumber });

/**
 * `struct vdso_data`, of which the first is the one of CLOCK_REALTIME and its like (include/vdso/datapage.h).
 */
export const vdsoDataStruct = struct('vdso_data', {
  monotonicSec: u64.at('basetime[6].sec'),
  monotonicNsec: u64.at('basetime[6].nsec'),
});
