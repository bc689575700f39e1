import { flags, pointer, s16, struct, u32, type ViewOf } from '../vmcore/view.ts';

/** `struct socket` (include/linux/net.h): the private_data of a socket's file. */
export const socketStruct = struct('socket', {
  state: u32,
  type: s16,
  flags,
  file: pointer,
  sk: pointer,
});

export type Socket = ViewOf<typeof socketStruct>;

/** Values of `socket.state` (include/uapi/linux/net.h). */
export const socketConnected = { connecting: 2, connected: 3 } as const;

/**
 * Bits of `socket.flags` (include/linux/net.h). 6.13 moves the PASS* bits into the sock; 6.1 and 6.12 have
 * them here.
 */
export const socketFlag = { passCredentials: 3, passSecurity: 4, passPidfd: 7 } as const;
