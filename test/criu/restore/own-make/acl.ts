/** The attribute of an ACL (acl(5)) that lets a user read and write, and root's group read. */
export function aclFor(uid: number): Uint8Array {
  const [USER_OBJ, NAMED_USER, GROUP_OBJ, MASK, OTHER, NOBODY] = [1, 2, 4, 16, 32, 0xffff_ffff];
  const entries = [
    [USER_OBJ, 6, NOBODY],
    [NAMED_USER, 6, uid],
    [GROUP_OBJ, 4, NOBODY],
    [MASK, 6, NOBODY],
    [OTHER, 0, NOBODY],
  ] as const;
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2, 0);
  for (const [i, [tag, permissions, id]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * i);
    bytes.writeUInt16LE(permissions, 6 + 8 * i);
    bytes.writeUInt32LE(id, 8 + 8 * i);
  }
  return bytes;
}
