import { addressOf, struct } from '../vmcore/view.ts';

/** `struct net` (include/net/net_namespace.h). */
export const netStruct = struct('net', { dev_base_head: addressOf('dev_base_head') });
