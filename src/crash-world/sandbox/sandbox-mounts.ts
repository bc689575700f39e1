import { hiddenMounts } from '../../model/hidden-mounts.ts';
import { mountLimits, type Sandbox, type SandboxMount } from '../../model/sandbox.ts';
import { mountText } from '../../system/mountinfo.ts';

/** A line of /proc/PID/mountinfo (proc(5)). */
export interface MountLine extends Omit<SandboxMount, 'isOwn'> {
  readonly id: number;
  readonly parent: number;
  /** `MAJOR:MINOR` of the file system. */
  readonly device: string;
}

function limitsOf(options: readonly string[]): number {
  return (
    (options.includes('ro') ? mountLimits.readOnly : 0) |
    (options.includes('nosuid') ? mountLimits.nosuid : 0) |
    (options.includes('nodev') ? mountLimits.nodev : 0) |
    (options.includes('noexec') ? mountLimits.noexec : 0) |
    (options.includes('nosymfollow') ? mountLimits.nosymfollow : 0)
  );
}

/** @param fields the optional fields of a line: `shared:1`, `master:2`, `propagate_from:3`, `unbindable` */
function propagationOf(fields: readonly string[]): number {
  const has = (kind: string): boolean => fields.some((field) => field.split(':', 1)[0] === kind);
  return (
    (has('shared') ? 0 : mountLimits.unshared) |
    (has('master') ? mountLimits.slave : 0) |
    (has('unbindable') ? mountLimits.unbindable : 0)
  );
}

/**
 * The mounts of a mount namespace, without those that another one covers or hides.
 * @param mountinfo text of /proc/PID/mountinfo, read as latin1
 */
export function parseMounts(mountinfo: string): MountLine[] {
  const lines = mountinfo.split('\n').filter(Boolean).map(parseLine);
  const byId = new Map(lines.map((line) => [line.id, line]));
  const covered = new Set(
    lines.filter(({ parent, path }) => byId.get(parent)?.path === path).map(({ parent }) => parent),
  );
  const hidden = hiddenMounts(lines);
  return lines.filter(({ id }) => !covered.has(id) && !hidden.has(id));
}

function parseLine(line: string): MountLine {
  const [mount = '', fileSystem = ''] = line.split(' - ');
  const [id, parent, device = '', root = '', path = '', options = '', ...fields] = mount.split(' ');
  const [type = '', , superOptions = ''] = fileSystem.split(' ');
  const own = superOptions.split(',');
  const hides = type === 'proc' ? own.filter((option) => /^(gid|hidepid|subset)=/.test(option)) : [];
  return {
    ...{ id: Number(id), parent: Number(parent), device, type },
    root: mountText(root),
    path: mountText(path),
    limits:
      limitsOf(options.split(',')) |
      (own.includes('ro') ? mountLimits.readOnly : 0) |
      propagationOf(fields.filter(Boolean)),
    options: hides.join(),
  };
}

/** systemd-private-BOOT-UNIT-RANDOM: the same directory of another start. */
function lastingRoot(root: string): string {
  return root.replace(
    /(^|\/)systemd-private-[0-9a-f]{32}-(.+)-[A-Za-z0-9]{6}\/tmp$/,
    '$1systemd-private-$2/tmp',
  );
}

type Seen = Omit<SandboxMount, 'path'>;

function describe(mount: Seen | undefined): string {
  if (mount === undefined) return 'nothing';
  const forbidden = Object.entries(mountLimits)
    .filter(([, bit]) => (mount.limits & bit) !== 0)
    .map(([name]) => (name === 'readOnly' ? 'read-only' : name));
  const options = [mount.options, mount.isOwn ? 'of its own' : ''].filter((text) => text !== '');
  return [`${mount.root} of ${mount.type}`, ...options, ...forbidden].join(', ');
}

function showsSame(a: Seen, b: Seen): boolean {
  return (
    a.type === b.type &&
    a.options === b.options &&
    a.isOwn === b.isOwn &&
    lastingRoot(a.root) === lastingRoot(b.root)
  );
}

function isSame(a: Seen | undefined, b: Seen | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return showsSame(a, b) && a.limits === b.limits;
}

/**
 * What a sandbox makes of a mount of the system around it: `nothing` of one that is not there, or what it
 * forbids besides. Undefined for a mount of the sandbox's own, and for one that it hides.
 */
function madeOf(inside: Seen | undefined, outside: Seen | undefined): 'nothing' | number | undefined {
  if (inside === undefined && outside === undefined) return 'nothing';
  if (inside === undefined || outside === undefined || !showsSame(inside, outside)) return undefined;
  return (outside.limits & ~inside.limits) === 0 ? inside.limits & ~outside.limits : undefined;
}

function byPath(mounts: readonly SandboxMount[]): ReadonlyMap<string, SandboxMount> {
  return new Map(mounts.map((mount) => [mount.path, mount]));
}

/**
 * The credentials of another unit, which the service manager mounts while that one runs: which of them a
 * sandbox has depends on when it was made.
 */
function isOfOtherUnit(path: string, unit: string): boolean {
  const [, owner] = /^\/run\/credentials\/([^/]+)/.exec(path) ?? [];
  return owner !== undefined && owner !== unit;
}

/**
 * What a sandbox that was made now shows otherwise than the one that a process was in: by what is mounted
 * where, with what is forbidden there. What the system around it has mounted is none of the sandbox's own: it
 * is the same sandbox if it forbids the same besides, whatever that is, or if one of the two worlds has no
 * such mount.
 * @param inside the mounts of the new sandbox
 * @param outside those of the system around it
 * @returns a sentence for each path
 */
export function sandboxDifferences(
  was: Pick<Sandbox, 'unit' | 'mounts' | 'outside'>,
  inside: readonly MountLine[],
  outside: readonly MountLine[],
): string[] {
  const devices = new Set(outside.map(({ device }) => device));
  const seen = (lines: readonly MountLine[]) =>
    byPath(lines.map((line) => ({ ...line, isOwn: !devices.has(line.device) })));
  const [before, beforeOutside] = [byPath(was.mounts), byPath(was.outside)];
  const [now, nowOutside] = [seen(inside), seen(outside)];
  const paths = new Set([...before.keys(), ...now.keys()]);
  return [...paths]
    .filter((path) => !isOfOtherUnit(path, was.unit))
    .flatMap((path) => {
      const [then, later] = [before.get(path), now.get(path)];
      const made = madeOf(then, beforeOutside.get(path));
      const makes = madeOf(later, nowOutside.get(path));
      const isPassedOn = made !== undefined && makes !== undefined;
      if (isSame(then, later)) return [];
      if (isPassedOn && (made === makes || made === 'nothing' || makes === 'nothing')) return [];
      return [`its sandbox has ${describe(later)} at ${path} now, and had ${describe(then)}`];
    });
}
