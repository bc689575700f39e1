import { pointer, struct, u32 } from '../vmcore/view.ts';

/** `struct bio_vec` (include/linux/bvec.h): bytes of a page. */
export const bioVecStruct = struct('bio_vec', {
  page: pointer.at('bv_page'),
  length: u32.at('bv_len'),
  offset: u32.at('bv_offset'),
});
