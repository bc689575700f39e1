/** An entry of an access control list as setxattr(2) takes it. */
function entry(tag: number, permissions: number, id = 0xffff_ffff): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(tag, 0);
  bytes.writeUInt16LE(permissions, 2);
  bytes.writeUInt32LE(id, 4);
  return bytes;
}

/** user::rwx, user:UID:rwx, group::r-x, mask::rwx, other::r-x, after version 2. */
export function sharedAcl(uid: number): Buffer {
  return Buffer.concat([
    Buffer.from([2, 0, 0, 0]),
    entry(1, 7),
    entry(2, 7, uid),
    entry(4, 5),
    entry(16, 7),
    entry(32, 5),
  ]);
}
