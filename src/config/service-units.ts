import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { systemPlace } from './unit-place.ts';

/**
 * The system service that a cgroup belongs to; undefined for sessions, user managers and what is outside
 * systemd's tree. What a container has below its own cgroup is not the system's, whatever its name.
 * @param path as in /proc/PID/cgroup
 */
export function serviceOf(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  const { slices, unit } = systemPlace(path);
  return slices[0] !== 'user.slice' && unit?.endsWith('.service') ? unit : undefined;
}

/** Directories in which systemd looks for units that outlive a boot (systemd.unit(5)). */
const UNIT_DIRECTORIES = [
  '/etc/systemd/system',
  '/usr/local/lib/systemd/system',
  '/usr/lib/systemd/system',
  '/lib/systemd/system',
];

/** The template that a unit is made from: `a@.service` of `a@b.service`. The unit itself if it has none. */
export function templateOf(unit: string): string {
  return unit.replace(/@.*(\.[a-z]+)$/, '@$1');
}

/**
 * Whether a unit, or the template that it is made from, is installed; transient units (systemd-run) are not.
 */
export function isInstalled(unit: string, directories: readonly string[] = UNIT_DIRECTORIES): boolean {
  const template = templateOf(unit);
  return directories.some(
    (directory) => existsSync(join(directory, unit)) || existsSync(join(directory, template)),
  );
}

/** The system service that a cgroup belongs to, if systemd can start it again. */
export function installedServiceOf(path: string): string | undefined {
  const unit = serviceOf(path);
  return unit !== undefined && isInstalled(unit) ? unit : undefined;
}
