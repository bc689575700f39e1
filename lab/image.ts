import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { cacheDirectory, cacheKey, makeCacheDirectory, withLock } from './cache.ts';
import { guestKey } from './channel-key.ts';
import { runChecked } from './command.ts';
import { LabError } from './error.ts';
import { prepareNodeTree } from './node-tree.ts';
import type { Progress } from './progress.ts';
import { enabledUnits, maskedGenerators, maskedUnits, recipeFiles } from './recipe.ts';
import { aptSources, basePackages, type Release } from './release.ts';

/** A guest's root disk, ready to be booted through overlays: a raw ext4 file system, its kernel and initramfs. */
export interface GuestImage {
  /** Of everything that the image is made of. */
  key: string;
  directory: string;
  rootDisk: string;
  kernel: string;
  initrd: string;
  kernelRelease: string;
}

/** Raise when the steps below change in a way that the key's other inputs do not show. */
const RECIPE_VERSION = 1;
const DISK_SIZE = '8G';

/**
 * The image of a release with extra packages; built on first use (about a minute), then taken from the cache.
 * @param packages names of Debian packages of that release
 * @throws LabError when mmdebstrap or a package cannot be had
 */
export async function prepareImage(
  release: Release,
  packages: readonly string[],
  progress: Progress,
): Promise<GuestImage> {
  const nodeTree = await prepareNodeTree(progress);
  const install = [...new Set(packages)].sort();
  const files = recipeFiles(release, (await guestKey()).publicKey);
  const system = cacheKey([
    RECIPE_VERSION,
    release,
    basePackages,
    install,
    files,
    enabledUnits,
    maskedUnits,
    maskedGenerators,
  ]);
  const directory = cacheDirectory('images', `${release}-${cacheKey([system, nodeTree.key, DISK_SIZE])}`);
  if (existsSync(join(directory, 'root.img'))) return openImage(directory);
  const name = [release, ...install].join(' + ');
  await withLock(
    `image-${release}`,
    async () => {
      if (existsSync(join(directory, 'root.img'))) return;
      const build = cacheDirectory('build', `${release}-${system}`);
      if (!existsSync(build)) {
        progress.step(`building the Debian image ${name} (first time only)`);
        await buildSystem(build, release, install, files);
      }
      progress.step(`writing the disk image ${name}`);
      await buildDisk(build, nodeTree.directory, directory);
      if (install.length > 0) rmSync(build, { recursive: true, force: true });
    },
    () => progress.step(`waiting for another build of ${release}`),
  );
  return openImage(directory);
}

async function buildSystem(
  directory: string,
  release: Release,
  install: readonly string[],
  files: ReturnType<typeof recipeFiles>,
): Promise<void> {
  const archives = makeCacheDirectory('apt', release);
  const work = `${directory}.new`;
  makeCacheDirectory('build');
  rmSync(work, { recursive: true, force: true });
  await runChecked('mmdebstrap', mmdebstrapArguments(work, archives, release, install), {
    what: `mmdebstrap of ${[release, ...install].join(' + ')}`,
  });
  for (const file of files) {
    const path = join(work, file.path);
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    writeFileSync(path, file.content);
    chmodSync(path, file.mode ?? 0o644);
  }
  chmodSync(join(work, 'root/.ssh'), 0o700);
  await runChecked('chroot', [work, 'systemctl', '--quiet', 'enable', ...enabledUnits]);
  await runChecked('chroot', [work, 'systemctl', '--quiet', 'mask', ...maskedUnits]);
  await runChecked('chroot', [work, 'systemctl', '--quiet', 'set-default', 'multi-user.target']);
  const generators = join(work, 'etc/systemd/system-generators');
  mkdirSync(generators, { recursive: true });
  for (const generator of maskedGenerators) symlinkSync('/dev/null', join(generators, generator));
  // Newer than /usr: systemd has nothing to bring up to date at the first boot.
  for (const file of ['etc/.updated', 'var/.updated']) writeFileSync(join(work, file), '');
  renameSync(work, directory);
}

/** Downloaded packages are kept in `archives`, and taken from there the next time. */
function mmdebstrapArguments(
  target: string,
  archives: string,
  release: Release,
  install: readonly string[],
): string[] {
  return [
    '--mode=root',
    '--format=directory',
    '--variant=minbase',
    '--architectures=amd64',
    '--skip=essential/unlink',
    '--quiet',
    `--include=${[...basePackages, ...install].join(',')}`,
    '--aptopt=Apt::Install-Recommends "false"',
    '--dpkgopt=path-exclude=/usr/share/man/*',
    '--dpkgopt=path-exclude=/usr/share/info/*',
    '--dpkgopt=path-exclude=/usr/share/locale/*',
    '--dpkgopt=path-exclude=/usr/share/doc/*',
    '--dpkgopt=force-unsafe-io',
    `--setup-hook=mkdir -p "$1"/var/cache/apt/archives`,
    `--setup-hook=sync-in ${archives} /var/cache/apt/archives`,
    `--customize-hook=sync-out /var/cache/apt/archives ${archives}`,
    release,
    target,
    ...aptSources(release),
  ];
}

/** The root file system of `system` together with Otherworld's runtime, as an ext4 disk. */
async function buildDisk(system: string, nodeTree: string, directory: string): Promise<void> {
  const work = `${directory}.new`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  const root = join(work, 'root');
  await runChecked('cp', ['-al', system, root]);
  await runChecked('cp', ['-a', nodeTree, join(root, 'usr/lib/otherworld')]);
  const disk = join(work, 'root.img');
  const ext4 = ['-q', '-F', '-L', 'otherworld', '-E', 'lazy_itable_init=0,lazy_journal_init=0', '-d', root];
  await runChecked('mkfs.ext4', [...ext4, disk, DISK_SIZE]);
  for (const kind of ['vmlinuz', 'initrd.img']) {
    const file = readdirSync(join(root, 'boot')).find((name) => name.startsWith(`${kind}-`));
    if (!file) throw new LabError(`the image has no /boot/${kind}-*`);
    await runChecked('cp', [join(root, 'boot', file), join(work, file)]);
  }
  rmSync(root, { recursive: true, force: true });
  rmSync(directory, { recursive: true, force: true });
  renameSync(work, directory);
}

function openImage(directory: string): GuestImage {
  const kernel = readdirSync(directory).find((name) => name.startsWith('vmlinuz-'));
  if (!kernel) throw new LabError(`${directory} has no kernel: remove it, and it is built again`);
  const kernelRelease = kernel.slice('vmlinuz-'.length);
  return {
    key: basename(directory),
    directory,
    rootDisk: join(directory, 'root.img'),
    kernel: join(directory, kernel),
    initrd: join(directory, `initrd.img-${kernelRelease}`),
    kernelRelease,
  };
}
