/** A mount, as a line of /proc/PID/mountinfo tells of it (proc(5)). */
export interface MountEntry {
  /** Its number, as in `mnt_id` of /proc/PID/fdinfo; no two mounts have the same one at a time. */
  readonly id: string;
  /** `MAJOR:MINOR` of the file system. */
  readonly device: string;
  /** What of the file system is mounted. */
  readonly root: string;
  readonly path: string;
  /** `ext4`, `tmpfs` ... */
  readonly type: string;
}

/**
 * A path of /proc/PID/mountinfo, in which blanks and the like are written as `\040`.
 * @param escaped read as latin1
 */
export function mountText(escaped: string): string {
  const bytes = escaped.replace(/\\([0-7]{3})/g, (_, octal) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
  return Buffer.from(bytes, 'latin1').toString('utf8');
}

/**
 * All mounts of a mount namespace, in their order: a later one at the same path covers the earlier.
 * @param mountinfo text of /proc/PID/mountinfo, read as latin1
 */
export function mountEntries(mountinfo: string): MountEntry[] {
  return mountinfo
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [mount = '', fileSystem = ''] = line.split(' - ');
      const [id = '', , device = '', root = '', path = ''] = mount.split(' ');
      const [type = ''] = fileSystem.split(' ');
      return { id, device, root: mountText(root), path: mountText(path), type };
    });
}

/**
 * The mount that shows a path: the last of those that are mounted farthest down on the way to it.
 * @param path absolute, without links
 */
export function mountOf(path: string, mounts: readonly MountEntry[]): MountEntry | undefined {
  let found: MountEntry | undefined;
  for (const mount of mounts) {
    const isAbove = mount.path === '/' || path === mount.path || path.startsWith(`${mount.path}/`);
    if (isAbove && mount.path.length >= (found?.path.length ?? 0)) found = mount;
  }
  return found;
}
