import { dentryStruct, inodePaths, pathInFileSystem, type ResolvedPath } from '../linux/dcache.ts';
import { SB_RDONLY, superBlockStruct } from '../linux/fs.ts';
import { ipcSettings } from '../linux/ipc-namespace.ts';
import { MNT, type Mount } from '../linux/mount.ts';
import { procOptions } from '../linux/proc-fs.ts';
import { type MountPoint, readMounts } from '../linux/readers/mount-table.ts';
import { utsNamespaceStruct } from '../linux/utsname.ts';
import type { GroupFiles } from '../model/file.ts';
import { hiddenMounts } from '../model/hidden-mounts.ts';
import { mountLimits, type PrivateDirectory, type Sandbox, type SandboxMount } from '../model/sandbox.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { FileRefusal } from './files/refusal.ts';
import { ownerOf } from './private-directory.ts';
import type { Home } from './sandboxes.ts';
import { captureTmpfs } from './tmpfs-files.ts';

/** What systemd makes anew for each start, whatever the process has of it. */
const MADE_ANEW = /^\/(dev|run\/credentials)(\/|$)/;

function superBlockOf(kernel: Kernel, { mnt_sb }: Mount) {
  return kernel.bind(superBlockStruct).at(mnt_sb);
}

function limitsOf(kernel: Kernel, mount: Mount): number {
  const isReadOnly =
    (mount.mnt_flags & MNT.readonly) !== 0 || superBlockOf(kernel, mount).s_flags.has(SB_RDONLY);
  const limitIf = (flag: number, limit: number): number => ((mount.mnt_flags & flag) !== 0 ? limit : 0);
  return (
    (isReadOnly ? mountLimits.readOnly : 0) |
    limitIf(MNT.nosuid, mountLimits.nosuid) |
    limitIf(MNT.nodev, mountLimits.nodev) |
    limitIf(MNT.noexec, mountLimits.noexec) |
    limitIf(MNT.nosymfollow, mountLimits.nosymfollow) |
    limitIf(MNT.unbindable, mountLimits.unbindable) |
    ((mount.mnt_flags & MNT.shared) === 0 ? mountLimits.unshared : 0) |
    (mount.mnt_master !== 0n ? mountLimits.slave : 0)
  );
}

/** The mounts of a namespace that are seen. */
function mountsOf(
  kernel: Kernel,
  points: readonly MountPoint[],
  outside: readonly MountPoint[],
): SandboxMount[] {
  const shared = new Set(outside.map(({ mount }) => mount.mnt_sb));
  const covered = new Set(points.map(({ mount }) => `${mount.mnt_parent} ${mount.mnt_mountpoint}`));
  const isCovered = ({ mount }: MountPoint): boolean => covered.has(`${mount.address} ${mount.mnt_root}`);
  const hidden = hiddenMounts(
    points.map(({ path, mount }) => ({ id: mount.address, parent: mount.mnt_parent, path })),
  );
  return points
    .filter((point) => !isCovered(point) && !hidden.has(point.mount.address))
    .map(({ path, type, mount }) => ({
      path,
      type,
      root: pathInFileSystem(kernel, mount.mnt_root),
      limits: limitsOf(kernel, mount),
      options: type === 'proc' ? procOptions(kernel, superBlockOf(kernel, mount).s_fs_info) : '',
      isOwn: !shared.has(mount.mnt_sb),
    }));
}

/** The mounts of a namespace. Throws a FileRefusal if some of them cannot be read. */
function allMounts(kernel: Kernel, namespace?: bigint): readonly MountPoint[] {
  const { points, problems } = readMounts(kernel, namespace);
  if (problems[0] !== undefined)
    throw new FileRefusal(`is in a sandbox whose mounts cannot be read: ${problems[0]}`);
  return points;
}

/** Where a directory was outside of the sandbox. */
function outsideOf(kernel: Kernel, mount: Mount): ResolvedPath | undefined {
  return inodePaths(kernel, kernel.bind(dentryStruct).at(mount.mnt_root).d_inode)[0];
}

function privateDirectoriesOf(
  kernel: Kernel,
  points: readonly MountPoint[],
  mounts: readonly SandboxMount[],
  unit: string,
): PrivateDirectory[] {
  return mounts
    .filter(({ root }) => ownerOf(root) !== undefined)
    .map(({ path, root }) => {
      const owner = ownerOf(root);
      if (owner !== unit) throw new FileRefusal(`shares the private ${path} of ${owner} (JoinsNamespaceOf=)`);
      const point = points.find(
        (candidate) => candidate.path === path && pathInFileSystem(kernel, candidate.mount.mnt_root) === root,
      );
      const from = point === undefined ? undefined : outsideOf(kernel, point.mount)?.path;
      if (from === undefined) throw new FileRefusal(`has a private ${path}, which is nowhere outside`);
      return { path, from };
    });
}

/** A sandbox, and what is in memory of it alone. */
export interface CapturedSandbox {
  readonly sandbox: Sandbox;
  /** Everything on file systems that nobody outside has: it is made again with the group's own files. */
  readonly files: Pick<GroupFiles, 'directoriesToMake' | 'filesToMake'>;
}

/**
 * Captures the sandbox that a mount namespace is.
 * @param pids processes of the group
 * @throws FileRefusal if it cannot be compared later, or has what cannot be made again; VmcoreError
 */
export function captureSandbox(
  kernel: Kernel,
  { namespace, unit, uts, ipc }: Home,
  pids: ReadonlySet<number>,
): CapturedSandbox {
  const points = allMounts(kernel, namespace);
  const outsidePoints = allMounts(kernel);
  const mounts = mountsOf(kernel, points, outsidePoints);
  const sandbox: Sandbox = {
    unit,
    mounts,
    outside: mountsOf(kernel, outsidePoints, outsidePoints),
    privateDirectories: privateDirectoriesOf(kernel, points, mounts, unit),
    ...(uts === undefined ? {} : { hostName: hostNameOf(kernel, uts) }),
    ...(ipc === undefined ? {} : { ipc: ipcSettings(kernel, ipc) }),
  };
  return { sandbox, files: ownFiles(kernel, points, outsidePoints, pids) };
}

function hostNameOf(kernel: Kernel, uts: bigint): NonNullable<Sandbox['hostName']> {
  const { nodename: node, domainname: domain } = kernel.bind(utsNamespaceStruct).at(uts);
  return { node, domain };
}

function ownFiles(
  kernel: Kernel,
  points: readonly MountPoint[],
  outside: readonly MountPoint[],
  pids: ReadonlySet<number>,
): CapturedSandbox['files'] {
  const shared = new Set(outside.map(({ mount }) => mount.mnt_sb));
  const own = points.filter(
    ({ type, path, mount }) => type === 'tmpfs' && !shared.has(mount.mnt_sb) && !MADE_ANEW.test(path),
  );
  const { files, problems } = captureTmpfs(kernel, own, points, pids, () => false);
  const lost = problems[0] ?? [...files.symlinksToMake, ...files.namesToMake][0]?.path;
  if (lost !== undefined) throw new FileRefusal(`has what cannot be made again in its sandbox: ${lost}`);
  return files;
}
