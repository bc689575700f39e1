import { mountLimits, type Sandbox, type SandboxMount } from '../model/sandbox.ts';

/** A line of /proc/PID/mountinfo (proc(5)). */
export interface MountLine extends SandboxMount {
  readonly id: number;
  readonly parent: number;
  /** `MAJOR:MINOR` of the file system. */
  readonly device: string;
}

function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function limitsOf(options: readonly string[]): number {
  return (
    (options.includes('ro') ? mountLimits.readOnly : 0) |
    (options.includes('nosuid') ? mountLimits.nosuid : 0) |
    (options.includes('nodev') ? mountLimits.nodev : 0) |
    (options.includes('noexec') ? mountLimits.noexec : 0)
  );
}

/**
 * The mounts of a mount namespace, without those that another one covers.
 * @param mountinfo text of /proc/PID/mountinfo, read as latin1
 */
export function parseMounts(mountinfo: string): MountLine[] {
  const lines = mountinfo.split('\n').filter(Boolean).map(parseLine);
  const byId = new Map(lines.map((line) => [line.id, line]));
  const covered = new Set(
    lines.filter(({ parent, path }) => byId.get(parent)?.path === path).map(({ parent }) => parent),
  );
  return lines.filter(({ id }) => !covered.has(id));
}

function parseLine(line: string): MountLine {
  const [mount = '', fileSystem = ''] = line.split(' - ');
  const [id, parent, device = '', root = '', path = '', options = ''] = mount.split(' ');
  const [type = '', , superOptions = ''] = fileSystem.split(' ');
  const isReadOnly = superOptions.split(',').includes('ro');
  return {
    ...{ id: Number(id), parent: Number(parent), device, type },
    root: Buffer.from(unescaped(root), 'latin1').toString('utf8'),
    path: Buffer.from(unescaped(path), 'latin1').toString('utf8'),
    limits: limitsOf(options.split(',')) | (isReadOnly ? mountLimits.readOnly : 0),
  };
}

/** systemd-private-BOOT-UNIT-RANDOM: the same directory of another start. */
function lastingRoot(root: string): string {
  return root.replace(
    /(^|\/)systemd-private-[0-9a-f]{32}-(.+)-[A-Za-z0-9]{6}\/tmp$/,
    '$1systemd-private-$2/tmp',
  );
}

type Seen = Pick<SandboxMount, 'type' | 'root' | 'limits'>;

function describe(mount: Seen | undefined): string {
  if (mount === undefined) return 'nothing';
  const forbidden = Object.entries(mountLimits)
    .filter(([, bit]) => (mount.limits & bit) !== 0)
    .map(([name]) => (name === 'readOnly' ? 'read-only' : name));
  return [`${mount.root} of ${mount.type}`, ...forbidden].join(', ');
}

function isSame(a: Seen | undefined, b: Seen | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.type === b.type && lastingRoot(a.root) === lastingRoot(b.root) && a.limits === b.limits;
}

function byPath(mounts: readonly SandboxMount[]): ReadonlyMap<string, SandboxMount> {
  return new Map(mounts.map((mount) => [mount.path, mount]));
}

/**
 * What a sandbox that was made now shows otherwise than the one that a process was in: by what is mounted
 * where, with what is forbidden there. A mount that is in both worlds inside as it is outside is none of the
 * sandbox.
 * @param inside the mounts of the new sandbox
 * @param outside those of the system around it
 * @returns a sentence for each path
 */
export function sandboxDifferences(
  was: Pick<Sandbox, 'mounts' | 'outside'>,
  inside: readonly SandboxMount[],
  outside: readonly SandboxMount[],
): string[] {
  const [before, beforeOutside] = [byPath(was.mounts), byPath(was.outside)];
  const [now, nowOutside] = [byPath(inside), byPath(outside)];
  const paths = new Set([...before.keys(), ...now.keys()]);
  return [...paths].flatMap((path) => {
    const [then, later] = [before.get(path), now.get(path)];
    const isPassedOn = isSame(then, beforeOutside.get(path)) && isSame(later, nowOutside.get(path));
    if (isPassedOn || isSame(then, later)) return [];
    return [`its sandbox has ${describe(later)} at ${path} now, and had ${describe(then)}`];
  });
}
