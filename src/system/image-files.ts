/**
 * What CRIU's images take besides the content that they are about, whoever reckons with it: before a panic by
 * what /proc says, after it by the model.
 */

/** Registers of a thread in `core-TID.img`, with all that XSAVE may hold, and the file's last block. */
export const THREAD_BYTES = 32 << 10;
/** Files of each process, most of a block or two. */
export const PROCESS_FILES = 8;
/** The same of each group of processes. */
export const GROUP_FILES = 24;
