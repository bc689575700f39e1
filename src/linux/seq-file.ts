import { pointer, s64, struct } from '../vmcore/view.ts';

/** `struct seq_file` (include/linux/seq_file.h): what an open file has whose text the kernel writes. */
export const seqFileStruct = struct('seq_file', {
  private: pointer,
  /** Up to where the text has been read. */
  read_pos: s64,
});
