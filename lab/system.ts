import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { makeCacheDirectory } from './cache.ts';
import { runChecked } from './command.ts';
import { enabledUnits, maskedGenerators, maskedUnits, type RecipeFile } from './recipe.ts';
import { aptSources, basePackages, type Release } from './release.ts';

/**
 * Installs Debian with the packages of every guest into a directory.
 * @throws LabError with what mmdebstrap said
 */
export async function buildSystem(
  directory: string,
  release: Release,
  files: readonly RecipeFile[],
): Promise<void> {
  const work = `${directory}.new`;
  rmSync(work, { recursive: true, force: true });
  await runChecked('mmdebstrap', mmdebstrapArguments(work, release), { what: `mmdebstrap of ${release}` });
  for (const file of files) {
    const path = join(work, file.path);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, file.content);
    chmodSync(path, file.mode ?? 0o644);
  }
  chmodSync(join(work, 'root/.ssh'), 0o700);
  await configureSystemd(work);
  renameSync(work, directory);
}

/**
 * With the packages that Debian recommends, as an ordinary machine has them: some replace what another brings
 * (busybox in an initramfs), or decide what a program may do (apparmor). Downloaded packages are kept in the
 * cache, and taken from there the next time.
 */
function mmdebstrapArguments(target: string, release: Release): string[] {
  const archives = makeCacheDirectory('apt', release, 'archives');
  return [
    '--mode=root',
    '--format=directory',
    '--variant=minbase',
    '--architectures=amd64',
    '--skip=essential/unlink',
    '--quiet',
    `--include=${basePackages.join(',')}`,
    '--aptopt=Apt::Install-Recommends "true"',
    '--dpkgopt=path-exclude=/usr/share/man/*',
    '--dpkgopt=path-exclude=/usr/share/info/*',
    '--dpkgopt=path-exclude=/usr/share/locale/*',
    '--dpkgopt=path-exclude=/usr/share/doc/*',
    '--dpkgopt=force-unsafe-io',
    // Alternatives have links there, whose pages are left out above.
    `--setup-hook=for n in 1 2 3 4 5 6 7 8; do mkdir -p "$1"/usr/share/man/man$n; done`,
    `--setup-hook=mkdir -p "$1"/var/cache/apt/archives`,
    `--setup-hook=sync-in ${archives} /var/cache/apt/archives`,
    `--customize-hook=sync-out /var/cache/apt/archives ${archives}`,
    release,
    target,
    ...aptSources(release),
  ];
}

async function configureSystemd(root: string): Promise<void> {
  const systemctl = (...args: string[]): Promise<unknown> =>
    runChecked('chroot', [root, 'systemctl', '--quiet', ...args]);
  await systemctl('enable', ...enabledUnits);
  await systemctl('mask', ...maskedUnits);
  await systemctl('set-default', 'multi-user.target');
  const generators = join(root, 'etc/systemd/system-generators');
  mkdirSync(generators, { recursive: true });
  for (const generator of maskedGenerators) symlinkSync('/dev/null', join(generators, generator));
  markUpToDate(root);
}

/** Newer than /usr: systemd has nothing to bring up to date at the first boot. */
function markUpToDate(root: string): void {
  for (const file of ['etc/.updated', 'var/.updated']) writeFileSync(join(root, file), '');
}

/**
 * apt in the system's own root, with the package lists and archives of the cache in place of its own, in a
 * mount namespace that ends with it. No service is started (policy-rc.d).
 */
const EXTEND = `
root=$1 archives=$2 lists=$3
shift 3
mount -t proc proc "$root/proc"
mount --bind "$archives" "$root/var/cache/apt/archives"
mount --bind "$lists" "$root/var/lib/apt/lists"
mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\\nexit 101\\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
apt() { chroot "$root" apt-get -qq -o APT::Sandbox::User=root "$@"; }
apt install -y "$@" || { apt update && apt install -y "$@"; }
rm "$root/usr/sbin/policy-rc.d"
`;

/**
 * Makes a copy of a system with more packages in it.
 * @throws LabError with what apt said
 */
export async function extendSystem(
  base: string,
  directory: string,
  release: Release,
  packages: readonly string[],
): Promise<void> {
  const work = `${directory}.new`;
  rmSync(work, { recursive: true, force: true });
  await runChecked('cp', ['-a', '--reflink=auto', base, work]);
  const archives = makeCacheDirectory('apt', release, 'archives');
  const lists = makeCacheDirectory('apt', release, 'lists');
  makeCacheDirectory('apt', release, 'archives', 'partial');
  const script = ['sh', '-euc', EXTEND, 'sh', work, archives, lists, ...packages];
  await runChecked('unshare', ['--mount', '--propagation', 'private', ...script], {
    what: `installing ${packages.join(', ')}`,
  });
  markUpToDate(work);
  renameSync(work, directory);
}
