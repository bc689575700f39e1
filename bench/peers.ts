import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cacheDirectory } from '../lab/cache.ts';

/**
 * drgn and crash as Debian 13 ships them, in a chroot under the cache, with the debug symbols
 * of one kernel that drgn and crash need to read a dump (Otherworld needs none).
 */
export interface Peers {
  readonly root: string;
  /** Path, inside the chroot, of the kernel image with DWARF. */
  readonly vmlinux: string;
  /** `drgn VERSION and crash VERSION`, of the packages. */
  readonly versions: string;
}

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';
const SOURCES = [
  `deb [signed-by=${KEYRING}] http://deb.debian.org/debian trixie main`,
  `deb [signed-by=${KEYRING}] http://deb.debian.org/debian-security trixie-security main`,
];
const PACKAGES = ['python3-drgn', 'crash', 'makedumpfile'];

/**
 * Builds (first time: about a minute and a 320 MB download) or finds the chroot for kernel `release`, for
 * example `6.12.107+deb13-cloud-amd64`.
 *
 * @throws Error when mmdebstrap is missing or the archive has no debug package of that release any more.
 */
export function preparePeers(release: string): Peers {
  const key = createHash('sha256')
    .update([...SOURCES, release, ...PACKAGES].join('\n'))
    .digest('hex')
    .slice(0, 16);
  const root = cacheDirectory('peers', key);
  const vmlinux = `/usr/lib/debug/boot/vmlinux-${release}`;
  if (!existsSync(join(root, vmlinux))) buildRoot(root, vmlinux, release);
  return { root, vmlinux, versions: packageVersions(root) };
}

function buildRoot(root: string, vmlinux: string, release: string): void {
  const building = `${root}.building`;
  rmSync(building, { recursive: true, force: true });
  mkdirSync(dirname(building), { recursive: true });
  console.error(`building a chroot with ${PACKAGES.join(', ')} (first time only)`);
  execFileSync(
    'mmdebstrap',
    ['--variant=minbase', '--quiet', `--include=${PACKAGES.join(',')}`, 'trixie', building, ...SOURCES],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  console.error(`downloading the debug symbols of ${release}`);
  const fetchAndUnpack = [
    'cd /tmp && apt-get update -q',
    `apt-get download -q linux-image-${release}-dbg`,
    `dpkg-deb --fsys-tarfile linux-image-*-dbg_*.deb | tar -x -C / .${vmlinux}`,
    'rm linux-image-*-dbg_*.deb',
  ].join(' && ');
  execFileSync('cp', ['/etc/resolv.conf', '/etc/hosts', join(building, 'etc')]);
  execFileSync('chroot', [building, 'sh', '-ec', fetchAndUnpack], { stdio: ['ignore', 'ignore', 'inherit'] });
  rmSync(root, { recursive: true, force: true });
  renameSync(building, root);
}

function packageVersions(root: string): string {
  const version = (name: string): string => {
    const status = execFileSync('dpkg-query', ['--root', root, '-s', name], { encoding: 'utf8' });
    return /^Version: ([^-+~]+)/m.exec(status)?.[1] ?? '?';
  };
  return `drgn ${version('python3-drgn')} and crash ${version('crash')}`;
}

/** The command line that runs `command` in the chroot with the host folder `shared` visible as /mnt. */
export function peerCommand(peers: Peers, shared: string, command: readonly string[]): string[] {
  const inside =
    'mount --bind "$1" "$0/mnt" && mount -t proc proc "$0/proc" && root=$0 && shift && exec chroot "$root" "$@"';
  return ['unshare', '--mount', 'sh', '-ec', inside, peers.root, shared, ...command];
}
