import { pointer, struct, u32, u64 } from '../vmcore/view.ts';

/** `struct splice_desc` (include/linux/splice.h): of sendfile(2), in a variable of who moves its bytes. */
export const spliceDesc = struct('splice_desc', {
  /** Of the whole call. */
  len: u32,
  /** Of what was read last, once it was. */
  total_len: u64,
  out: pointer.at('u.file'),
  /** Where in the file what is read next begins; while that is sent, where it began. */
  pos: u64,
  /** The place in the file that it goes to: a variable of who was called. */
  opos: pointer,
});
