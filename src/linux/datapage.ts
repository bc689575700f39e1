import { struct, u64 } from '../vmcore/view.ts';

/**
 * `struct vdso_data`, of which the first is the one of CLOCK_REALTIME and its like (include/vdso/datapage.h).
 */
export const vdsoDataStruct = struct('vdso_data', {
  monotonicSec: u64.at('basetime[6].sec'),
  monotonicNsec: u64.at('basetime[6].nsec'),
});
