import { accessSync, constants, existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory, makeCacheDirectory, withLock } from './cache.ts';
import { runChecked, runCommand } from './command.ts';
import { LabError } from './error.ts';
import type { Progress } from './progress.ts';

/** A QEMU that can be started: programs, the environment they need and where their firmware lies. */
export interface Qemu {
  system: string;
  img: string;
  environment: NodeJS.ProcessEnv;
  firmwareArguments: readonly string[];
  version: string;
}

/**
 * QEMU before this release gave 6.12 guests a double fault of its own making under TCG
 * (7.2 did, 10.0.2 ran the same load without).
 */
const OLDEST_MAJOR = 10;

const PACKAGES = ['qemu-system-x86', 'qemu-utils'];

/**
 * The distribution's QEMU if it is new enough, else Debian 12's backport, unpacked under the cache.
 * @throws LabError if neither can be had.
 */
export async function findQemu(progress: Progress): Promise<Qemu> {
  const installed = await probe({
    system: '/usr/bin/qemu-system-x86_64',
    img: '/usr/bin/qemu-img',
    environment: process.env,
    firmwareArguments: [],
  });
  if (installed) return installed;
  const ready = await findUnpackedQemu();
  if (ready) return ready;
  await withLock('qemu', () => unpackBackport(progress));
  const fresh = await findUnpackedQemu();
  if (!fresh) throw new LabError(`QEMU was unpacked under ${cacheDirectory('qemu')}, but does not start`);
  return fresh;
}

/** The one that was unpacked under the cache; undefined if none was. */
export function findUnpackedQemu(): Promise<Qemu | undefined> {
  return probe(unpackedQemu(cacheDirectory('qemu')));
}

function unpackedQemu(root: string): Omit<Qemu, 'version'> {
  const libraries = [join(root, 'usr/lib/x86_64-linux-gnu'), join(root, 'lib/x86_64-linux-gnu')];
  return {
    system: join(root, 'usr/bin/qemu-system-x86_64'),
    img: join(root, 'usr/bin/qemu-img'),
    environment: { ...process.env, LD_LIBRARY_PATH: libraries.join(':') },
    firmwareArguments: ['-L', join(root, 'usr/share/qemu'), '-L', join(root, 'usr/share/seabios')],
  };
}

async function probe(qemu: Omit<Qemu, 'version'>): Promise<Qemu | undefined> {
  if (!isExecutable(qemu.system) || !isExecutable(qemu.img)) return undefined;
  const { status, stdout } = await runCommand(qemu.system, ['--version'], { env: qemu.environment });
  const version = /version (\d+)\.([\d.]+)/.exec(stdout);
  if (status !== 0 || !version || Number(version[1]) < OLDEST_MAJOR) return undefined;
  return { ...qemu, version: `${version[1]}.${version[2]}` };
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function unpackBackport(progress: Progress): Promise<void> {
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  if (codename !== 'bookworm') {
    throw new LabError(
      `no QEMU ${OLDEST_MAJOR} or newer on this system: install qemu-system-x86 and qemu-utils of Debian 13 or newer`,
    );
  }
  progress.step('downloading QEMU from bookworm-backports (unpacked under the cache, not installed)');
  const apt = await aptConfiguration('bookworm-backports');
  await runChecked('apt-get', [...apt, 'update', '-qq'], { what: 'apt-get update for bookworm-backports' });
  const target = ['-t', 'bookworm-backports', '--no-install-recommends', '--download-only', '-y', '-qq'];
  await runChecked('apt-get', [...apt, ...target, 'install', ...PACKAGES], { what: 'downloading QEMU' });
  const fresh = makeCacheDirectory('qemu.new');
  const archives = cacheDirectory('apt-qemu', 'archives');
  const script = 'for deb in "$1"/*.deb; do dpkg-deb -x "$deb" "$2" || exit 1; done';
  await runChecked('sh', ['-c', script, 'sh', archives, fresh], { what: 'unpacking QEMU' });
  rmSync(cacheDirectory('qemu'), { recursive: true, force: true });
  renameSync(fresh, cacheDirectory('qemu'));
}

/**
 * apt-get options that use a source list, package lists and archives of our own; the system's are not
 * touched.
 */
async function aptConfiguration(suite: string): Promise<string[]> {
  const root = makeCacheDirectory('apt-qemu');
  makeCacheDirectory('apt-qemu', 'lists', 'partial');
  makeCacheDirectory('apt-qemu', 'archives', 'partial');
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  if (!existsSync(keyring))
    throw new LabError(`${keyring} is missing: apt-get install debian-archive-keyring`);
  const mirror = 'http://deb.debian.org/debian';
  const security = 'http://deb.debian.org/debian-security';
  const line = (uri: string, name: string): string => `deb [signed-by=${keyring}] ${uri} ${name} main\n`;
  const list = join(root, 'sources.list');
  writeFileSync(
    list,
    line(mirror, 'bookworm') +
      line(mirror, 'bookworm-updates') +
      line(security, 'bookworm-security') +
      line(mirror, suite),
  );
  const settings = {
    'Dir::Etc::SourceList': list,
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State::Lists': join(root, 'lists'),
    'Dir::Cache::Archives': join(root, 'archives'),
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'APT::Sandbox::User': 'root',
  };
  return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
}
