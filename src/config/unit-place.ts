/**
 * Where a process is in the tree of a systemd manager: cgroups that only the manager makes, and what a unit
 * has made below its own.
 */
export interface UnitPlace {
  /** Slices from the root on, without the root slice: `['system.slice', 'system-web.slice']`. */
  readonly slices: readonly string[];
  /** The service or scope; undefined for a process in a slice. */
  readonly unit: string | undefined;
  /** Cgroups below the unit's: its own matter, or that of whoever it was given to (a container, a user). */
  readonly below: readonly string[];
}

/**
 * The place of a cgroup in the system manager's tree, read from the root: slices lie in slices, a unit in the
 * last of them, and nothing below a unit is the manager's, whatever its name (systemd.slice(5), cgroups(7)).
 * @param path as in /proc/PID/cgroup
 */
export function systemPlace(path: string): UnitPlace {
  return placeOf(path.split('/').filter((part) => part !== ''));
}

function placeOf(parts: readonly string[]): UnitPlace {
  const first = parts.findIndex((part) => !part.endsWith('.slice'));
  if (first < 0) return { slices: parts, unit: undefined, below: [] };
  return { slices: parts.slice(0, first), unit: parts[first], below: parts.slice(first + 1) };
}

/** The user whose slice a place is in (`user-1000.slice` of logind); undefined for the system's own. */
export function slicesUser({ slices: [outer, inner] }: UnitPlace): number | undefined {
  const uid = outer === 'user.slice' ? /^user-(\d+)\.slice$/.exec(inner ?? '')?.[1] : undefined;
  return uid === undefined ? undefined : Number(uid);
}

/**
 * The place in the tree of the user's own manager (`user@1000.service`), if the place in the system's is
 * below that.
 */
export function userManagersPlace(place: UnitPlace): UnitPlace | undefined {
  const uid = slicesUser(place);
  return uid !== undefined && place.unit === `user@${uid}.service` ? placeOf(place.below) : undefined;
}
