/**
 * What systemd makes for `PrivateTmp=` has the boot's id and a random end in its name (src/core/namespace.c).
 */
const PRIVATE = /^(?:|.*\/)systemd-private-[0-9a-f]{32}-(.+)-[A-Za-z0-9]{6}\/tmp$/;

/**
 * The unit that a private directory was made for; undefined if it is none.
 * @param root the root of a mount, from that of its file system
 */
export function ownerOf(root: string): string | undefined {
  return PRIVATE.exec(root)?.[1];
}
