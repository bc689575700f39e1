import { randomUUID } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { ifThere } from '../src/system/proc.ts';
import { cacheDirectory, cacheKey, makeCacheDirectory, markUsed, removeUnused, withLock } from './cache.ts';
import { guestKey } from './channel-key.ts';
import { runChecked } from './command.ts';
import { LabError } from './error.ts';
import { prepareNodeTree } from './node-tree.ts';
import type { Progress } from './progress.ts';
import { enabledUnits, maskedGenerators, maskedUnits, type RecipeFile, recipeFiles } from './recipe.ts';
import { basePackages, type Release } from './release.ts';
import { buildSystem, extendSystem } from './system.ts';

/**
 * A guest's root disk, ready to be booted through overlays: a raw ext4 file system, its kernel and initramfs.
 */
export interface GuestImage {
  /** Key of the release's system without extra packages. */
  systemKey: string;
  directory: string;
  /** Of its disk: what fits the disk fits no other one that is built later under the same key. */
  identity: string;
  rootDisk: string;
  kernel: string;
  initrd: string;
  kernelRelease: string;
}

/** Raise when the steps below change in a way that the key's other inputs do not show. */
const RECIPE_VERSION = 3;
const DISK_SIZE = '8G';
const IDENTITY = 'identity';

/** What an image is made of, and the keys that follow from it. */
interface Plan {
  release: Release;
  install: readonly string[];
  files: readonly RecipeFile[];
  nodeTree: string;
  /** Key of the release's system without extra packages. */
  systemKey: string;
  /** Key of the image. */
  key: string;
}

/**
 * For who begins with other work: an image can be built, or there is one of each release already.
 * @param instead what can be done without root; empty if nothing
 * @throws LabError if a guest would fail later, for lack of root
 */
export function checkImages(
  releases: readonly Release[],
  instead = '',
  isRoot: boolean = process.getuid?.() === 0,
  images: string = cacheDirectory('images'),
): void {
  if (isRoot) return;
  const built = existsSync(images) ? readdirSync(images) : [];
  const missing = releases.find((release) => !built.some((name) => name.startsWith(`${release}-`)));
  if (missing === undefined) return;
  throw new LabError(
    `root is needed: there is no image of Debian ${missing} yet, and to build one takes mmdebstrap and chroot. ` +
      `Call this with sudo${instead}`,
  );
}

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
  const plan = await planImage(release, packages, progress);
  const directory = cacheDirectory('images', plan.key);
  const ready = (): boolean => existsSync(join(directory, 'root.img'));
  if (ready()) return openImage(plan);
  if (process.getuid?.() !== 0)
    throw new LabError('building a guest needs root, for mmdebstrap and chroot: call this with sudo');
  await withLock(
    `image-${release}`,
    async () => {
      if (!ready()) await buildImage(plan, directory, progress);
    },
    () => progress.step(`waiting for another build of ${release}`),
  );
  return openImage(plan);
}

async function planImage(release: Release, packages: readonly string[], progress: Progress): Promise<Plan> {
  const nodeTree = await prepareNodeTree(progress);
  const install = [...new Set(packages)].sort();
  const files = recipeFiles(release, (await guestKey()).publicKey);
  const units = [enabledUnits, maskedUnits, maskedGenerators];
  const systemKey = `${release}-${cacheKey([RECIPE_VERSION, basePackages, files, units])}`;
  const key = `${release}-${cacheKey([systemKey, install, nodeTree.key, DISK_SIZE])}`;
  return { release, install, files, nodeTree: nodeTree.directory, systemKey, key };
}

async function buildImage(plan: Plan, directory: string, progress: Progress): Promise<void> {
  const { release, install } = plan;
  for (const kind of ['images', 'snapshots']) removeUnused(makeCacheDirectory(kind));
  const base = join(makeCacheDirectory('build'), plan.systemKey);
  if (!existsSync(base)) {
    progress.step(`building the Debian image ${release} (first time only)`);
    removeBuilds(release);
    await buildSystem(base, release, plan.files);
  }
  const extended = cacheDirectory('build', plan.key);
  if (install.length > 0) {
    progress.step(`installing ${install.join(', ')} (first time only)`);
    await extendSystem(base, extended, release, install);
  }
  progress.step(`writing the disk image ${[release, ...install].join(' + ')}`);
  await buildDisk(install.length > 0 ? extended : base, plan.nodeTree, directory);
  rmSync(extended, { recursive: true, force: true });
}

/** What an older recipe left, half a gigabyte each. */
function removeBuilds(release: Release): void {
  const builds = makeCacheDirectory('build');
  for (const name of readdirSync(builds)) {
    if (name.startsWith(`${release}-`)) rmSync(join(builds, name), { recursive: true, force: true });
  }
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
  writeFileSync(join(work, IDENTITY), randomUUID());
  rmSync(root, { recursive: true, force: true });
  rmSync(directory, { recursive: true, force: true });
  renameSync(work, directory);
}

function openImage(plan: Plan): GuestImage {
  const directory = cacheDirectory('images', plan.key);
  const kernel = readdirSync(directory).find((name) => name.startsWith('vmlinuz-'));
  if (!kernel) throw new LabError(`${directory} has no kernel: remove it, and it is built again`);
  markUsed(directory);
  const kernelRelease = kernel.slice('vmlinuz-'.length);
  return {
    systemKey: plan.systemKey,
    directory,
    identity: imageIdentity(directory),
    rootDisk: join(directory, 'root.img'),
    kernel: join(directory, kernel),
    initrd: join(directory, `initrd.img-${kernelRelease}`),
    kernelRelease,
  };
}

/** Images of older versions have none; nobody writes to their disks, so these have their times. */
export function imageIdentity(directory: string): string {
  const written = ifThere(() => readFileSync(join(directory, IDENTITY), 'utf8'));
  return written ?? String(statSync(join(directory, 'root.img')).mtimeMs);
}
