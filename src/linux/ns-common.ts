import { pointer, struct } from '../vmcore/view.ts';

/** `struct ns_common` (include/linux/ns_common.h): what all namespaces have, and a file of nsfs leads to. */
export const nsCommonStruct = struct('ns_common', { ops: pointer });
