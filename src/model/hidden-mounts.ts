/** Where a mount is: its number or address, that of the one it is mounted on, and its path. */
export interface PlacedMount<Id> {
  readonly id: Id;
  readonly parent: Id;
  readonly path: string;
}

/** The directories above a path, `/` first. */
function above(path: string): string[] {
  const names = path.split('/').filter(Boolean);
  return names.map((_, i) => `/${names.slice(0, i).join('/')}`);
}

/**
 * The mounts that no path leads to, though nothing is mounted on their roots: a directory above has been
 * mounted over, as those of users are in a sandbox without them (`ProtectHome=`). systemd takes away what is
 * mounted there when it makes the sandbox; what is mounted later gets below.
 *
 * @param mounts of one namespace
 */
export function hiddenMounts<Id>(mounts: readonly PlacedMount<Id>[]): ReadonlySet<Id> {
  const byId = new Map(mounts.map((mount) => [mount.id, mount]));
  const on = new Map<Id, Set<string>>();
  for (const { id, parent, path } of mounts)
    if (parent !== id) on.set(parent, (on.get(parent) ?? new Set()).add(path));
  const isPassed = ({ id, parent, path }: PlacedMount<Id>): boolean =>
    parent !== id && above(path).some((directory) => on.get(parent)?.has(directory) === true);
  const isHidden = (mount: PlacedMount<Id>): boolean => {
    let at: PlacedMount<Id> | undefined = mount;
    // A way that is longer than that is a circle, and leads nowhere.
    for (let steps = 0; at !== undefined && steps < mounts.length; steps++) {
      if (isPassed(at)) return true;
      if (at.parent === at.id) return false;
      at = byId.get(at.parent);
    }
    return at !== undefined;
  };
  return new Set(mounts.filter(isHidden).map(({ id }) => id));
}
