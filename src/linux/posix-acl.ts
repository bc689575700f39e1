import { addressOf, struct, u32 } from '../vmcore/view.ts';

/**
 * `struct posix_acl` (include/linux/posix_acl.h): an access control list, as numbers of the initial user
 * namespace.
 */
export const posixAclStruct = struct('posix_acl', { a_count: u32, a_entries: addressOf('a_entries') });
