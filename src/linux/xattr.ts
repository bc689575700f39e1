import { isWholeText } from '../system/byte-text.ts';
import { ContainerError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { addressOf, pointer, struct, ulongNumber } from '../vmcore/view.ts';
import { inodeStruct, SB_POSIXACL, superBlockStruct } from './fs.ts';
import { listForEach } from './list.ts';
import { posixAclStruct } from './posix-acl.ts';
import { rbTreeForEach } from './rbtree.ts';
import { shmemInodeInfo } from './shmem.ts';

/** `struct simple_xattr` (include/linux/xattr.h); 6.2 put them into a tree instead of a list. */
export const simpleXattr = struct('simple_xattr', {
  link: addressOf().at('rb_node', 'list'),
  name: pointer,
  size: ulongNumber,
});

/** XATTR_NAME_MAX and XATTR_SIZE_MAX (include/uapi/linux/limits.h). */
const MAX_NAME = 256;
const MAX_SIZE = 65536;
const MAX_ATTRIBUTES = 1 << 16;
/** ACL_NOT_CACHED and ACL_DONT_CACHE (include/linux/fs.h, -1 and -3) are no pointers. */
const FIRST_SENTINEL = 0xffff_ffff_ffff_f000n;
/** POSIX_ACL_XATTR_VERSION; an entry is tag, permissions and id, as in the kernel. */
const ACL_VERSION = 2;
const ACL_ENTRY_BYTES = 8;

/** An extended attribute as setxattr(2) takes it. */
export interface Xattr {
  readonly name: string;
  readonly value: Uint8Array;
}

/**
 * Whether an inode (its address) of any file system has an access control list beyond its mode; undefined if
 * memory does not tell, because the kernel has not looked since it read the inode. Of a file that it made it
 * knows (posix_acl_create).
 */
export function hasAcl(kernel: Kernel, inode: bigint): boolean | undefined {
  const { i_acl, i_sb } = kernel.bind(inodeStruct).at(inode);
  if (i_acl < FIRST_SENTINEL) return i_acl !== 0n;
  return kernel.bind(superBlockStruct).at(i_sb).s_flags.has(SB_POSIXACL) ? undefined : false;
}

function aclOf(kernel: Kernel, name: string, address: bigint): Xattr[] {
  if (address === 0n || address >= FIRST_SENTINEL) return [];
  const { a_count, a_entries } = kernel.bind(posixAclStruct).at(address);
  if (a_count * ACL_ENTRY_BYTES > MAX_SIZE)
    throw new ContainerError('posix_acl', address, `has ${a_count} entries`);
  const version = Buffer.alloc(4);
  version.writeUInt32LE(ACL_VERSION);
  const entries = kernel.memory.read(a_entries, a_count * ACL_ENTRY_BYTES);
  return [{ name, value: Buffer.concat([version, entries]) }];
}

/**
 * Extended attributes and ACLs of an inode of tmpfs (its address), which are nowhere but in memory. Throws a
 * VmcoreError if their structures are damaged.
 */
export function tmpfsXattrs(kernel: Kernel, inode: bigint): Xattr[] {
  const { xattrs } = kernel.bind(shmemInodeInfo).containerOf(inode, 'vfs_inode');
  const Attribute = kernel.bind(simpleXattr);
  const walk = kernel.hasMember('simple_xattr', 'rb_node') ? rbTreeForEach : listForEach;
  const own = Array.from(walk(kernel, xattrs, MAX_ATTRIBUTES), (link): Xattr => {
    const { address, name, size } = Attribute.containerOf(link, 'link');
    if (size > MAX_SIZE) throw new ContainerError('simple_xattr', address, `has ${size} bytes`);
    const value = kernel.memory.read(address + BigInt(Attribute.offsetOf('value')), size);
    const text = kernel.memory.cstring(name, MAX_NAME);
    if (!isWholeText(text)) throw new ContainerError('simple_xattr', address, 'has a name that is not UTF-8');
    return { name: text, value };
  });
  const { i_acl, i_default_acl } = kernel.bind(inodeStruct).at(inode);
  return [
    ...own,
    ...aclOf(kernel, 'system.posix_acl_access', i_acl),
    ...aclOf(kernel, 'system.posix_acl_default', i_default_acl),
  ];
}
