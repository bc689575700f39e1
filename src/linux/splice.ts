import { pointer, struct, u32, u64 } from '../vmcore/view.ts';

/** `struct splice_desc` (include/linux/splice.h): of sendfile(2), in a variable of who moves its bytes. */
export const spliceDesc = struct('splice_desc', {
  /** Of the whole call. */
  len: u32,
  /** Of what was read last, once it was. */
  total_len: u64,
  out: pointer.at('u.file'),
  /** Where in the file what was read last begins. */
  pos: u64,
});
