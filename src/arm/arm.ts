import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { readBootLimits } from '../config/boot-limits.ts';
import type { Armed, Manifest } from '../config/manifest.ts';
import { ARMED_PATH, CACHE_DIRECTORY, INCIDENTS_DIRECTORY, STATE_DIRECTORY } from '../config/paths.ts';
import { configuredRules, type ProtectionRule } from '../config/protection.ts';
import type { Config } from '../config/schema.ts';
import { crashReservations } from '../kexec/index.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { makeImagesDirectory } from '../report/images.ts';
import { lockDirectory } from '../system/directory-lock.ts';
import type { Range } from '../system/range.ts';
import { StateError } from '../system/state-error.ts';
import { replaceFile } from '../system/state-file.ts';
import { findUser } from '../system/users.ts';
import { buildBundle } from './bundle.ts';
import { commandLineOf, earlyFiles, payload } from './crash-world-files.ts';
import { bootInQemu, type DeepQemu, requireQemu } from './deep.ts';
import { ArmError } from './errors.ts';
import { assembleInitramfs, buildBaseInitramfs, ownFiles } from './initramfs.ts';
import { parseIomem, reclaimableRanges } from './iomem.ts';
import {
  isCrashKernelLoaded,
  kernelImage,
  type Loaded,
  loadCrashKernel,
  type PlannedCrashKernel,
  planCrashKernel,
  reservedBytes,
  unloadCrashKernel,
} from './kexec.ts';
import { locateMark, newMark } from './loaded-mark.ts';
import { neededBytes, POSSIBLE_CPUS, possibleCpus } from './memory-need.ts';
import { requireNoObstacle } from './obstacles.ts';
import { restoreSysctls, setPanicSysctls, writeSysctls } from './panic-sysctls.ts';
import { buildRuntime } from './runtime.ts';
import { isCrashWorld, readArmed } from './state.ts';
import { tryInitramfs } from './trial.ts';

/** Told before each step that may take more than a second. */
export type ArmProgress = (step: string) => void;

/** On a slow machine, with a kernel that is being installed. */
const LONGEST_BUILD_SECONDS = 1800;

/** The parts of a crash initramfs that are built in advance and kept in the cache. */
interface Parts {
  readonly base: string;
  readonly runtime: string;
  readonly bundle: string;
}

/**
 * Builds what can be built before the kernel runs: at installation, or when a kernel is installed.
 * @throws ArmError
 */
export async function buildInAdvance(kernelRelease: string, progress: ArmProgress): Promise<Parts> {
  using _lock = lockCache(progress);
  return buildParts(kernelRelease, progress);
}

/** One `arm` at a time: the cache, the crash kernel and the sysctls are changed in several steps. */
function lockCache(progress: ArmProgress): Disposable {
  const onWait = (): void => progress('waiting for another otherworld that arms or builds');
  return lockDirectory(CACHE_DIRECTORY, { timeoutSeconds: LONGEST_BUILD_SECONDS, onWait });
}

async function buildParts(kernelRelease: string, progress: ArmProgress): Promise<Parts> {
  progress('runtime: Node.js, CRIU and their libraries as a squashfs');
  const runtime = buildRuntime();
  const bundle = await buildBundle();
  progress(`crash initramfs for ${kernelRelease}`);
  const base = buildBaseInitramfs(kernelRelease);
  return { base: base.path, runtime: runtime.path, bundle: bundle.path };
}

/** Whether a kernel is of a series that was not checked. @throws ArmError if it is and that is not allowed */
export function isUnchecked(release: string, isAllowed: boolean): boolean {
  const problem = uncheckedRelease(release);
  if (problem !== undefined && !isAllowed)
    throw new ArmError(`${problem}; boot a kernel of a checked series, or arm with --unchecked`);
  return problem !== undefined;
}

/**
 * Arms the running system: builds the crash initramfs (or takes it from the cache), loads it with the running
 * kernel's own image as crash kernel, and sets the panic sysctls. Whatever was loaded before is replaced.
 * @param allowUnchecked also a kernel of a series that was not checked
 * @throws ArmError saying what is missing; Error if others can write to the directory of images
 */
export async function arm(config: Config, progress: ArmProgress, allowUnchecked = false): Promise<Armed> {
  using _lock = lockCache(progress);
  return load(await plan(config, progress, allowUnchecked), earlierArmed(progress), progress);
}

/**
 * Boots what `arm` would load in QEMU, up to the crash world's program. Nothing is loaded here.
 * @param unpacked finds a QEMU, where the system has none installed
 * @throws ArmError saying what is missing, or how far it came
 */
export async function tryBoot(
  config: Config,
  progress: ArmProgress,
  unpacked: () => Promise<DeepQemu | undefined>,
): Promise<string> {
  const qemu = await requireQemu(unpacked);
  using _lock = lockCache(progress);
  const { manifest, parts, image } = await plan(config, progress, true);
  const own = ownFiles(parts.runtime, payload(manifest, parts.bundle), newMark());
  const commandLine = commandLineOf(config, manifest.release, manifest.ranges);
  progress('booting the crash kernel in QEMU');
  return bootInQemu(qemu, { image, base: parts.base, own, commandLine, memoryBytes: manifest.reservedBytes });
}

/** All that is to be loaded, built or taken from the cache. */
interface Plan {
  readonly manifest: Manifest;
  readonly parts: Parts;
  readonly image: string;
}

async function plan(config: Config, progress: ArmProgress, allowUnchecked: boolean): Promise<Plan> {
  if (isCrashWorld()) {
    throw new ArmError(
      'this is a crash world already, and it cannot be armed again yet: reboot when it suits you',
    );
  }
  const release = runningRelease();
  const unchecked = isUnchecked(release, allowUnchecked);
  const image = kernelImage(release);
  if (!existsSync(image))
    throw new ArmError(`${image} is gone: the running kernel was removed; reboot into an installed one`);
  requireNoObstacle(image);
  const reserved = reservedBytes();
  if (reserved === 0) {
    throw new ArmError(
      'no memory is reserved for a crash kernel: add crashkernel=320M to GRUB_CMDLINE_LINUX in /etc/default/grub, ' +
        'run update-grub and reboot',
    );
  }
  const ranges = reclaimableRanges(parseIomem(readFileSync('/proc/iomem', 'utf8')), reserved);
  const rules = rulesOf(config);
  makeImagesDirectory(config.images.directory);
  const parts = await buildParts(release, progress);
  const manifest: Manifest = {
    version: 1,
    release,
    unchecked,
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    armedAt: new Date().toISOString(),
    reservedBytes: reserved,
    ranges,
    config,
    bootLimits: readBootLimits(),
    rules,
  };
  mkdirSync(INCIDENTS_DIRECTORY, { recursive: true, mode: 0o700 });
  mkdirSync(STATE_DIRECTORY, { recursive: true, mode: 0o700 });
  return { manifest, parts, image };
}

/** The configuration's rules; the crash world has no directory of users to ask. */
function rulesOf(config: Config): ProtectionRule[] {
  const { rules, problems } = configuredRules(config, findUser);
  if (problems.length > 0) throw new ArmError(`the configuration is wrong: ${problems.join('; ')}`);
  return [...rules];
}

/** What an earlier `arm` of this boot noted; undefined if there was none or it cannot be read. */
function earlierArmed(progress: ArmProgress): Armed | undefined {
  try {
    return readArmed();
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    progress(`${error.message}; the panic sysctls of now count as those from before`);
    return undefined;
  }
}

function load(plan: Plan, earlier: Armed | undefined, progress: ArmProgress): Armed {
  const { manifest, parts, image } = plan;
  const { config } = manifest;
  const commandLine = commandLineOf(config, manifest.release, manifest.ranges);
  const initramfs = join(CACHE_DIRECTORY, 'crash-initramfs.img');
  const mark = newMark();
  const own = ownFiles(parts.runtime, payload(manifest, parts.bundle), mark);
  progress('trying what the crash initramfs will run');
  tryInitramfs(parts.base, own, manifest.release);
  try {
    const initramfsBytes = assembleInitramfs(earlyFiles(), parts.base, own, initramfs);
    const bootProcessor = config['crash-kernel']['boot-processor'];
    const planned = planCrashKernel({ image, initramfs, commandLine, bootProcessor });
    const neededBytes = requireMemory(plan, planned, initramfsBytes);
    progress('loading the crash kernel');
    // While there is no crash kernel, nothing may panic that would limp on otherwise: loading one keeps a
    // busy machine's CPU for long.
    const loaded = loadCrashKernel(planned, () =>
      earlier === undefined ? () => undefined : setAside(earlier),
    );
    return noteArmed({ manifest, commandLine, initramfsBytes, neededBytes }, loaded, mark);
  } finally {
    rmSync(initramfs, { force: true });
  }
}

/** What the crash world needs. @throws ArmError if less is reserved */
function requireMemory(
  { manifest, parts }: Plan,
  { crashKernel, image }: PlannedCrashKernel,
  initramfsBytes: number,
): number {
  const needed = neededBytes({
    initramfsBytes,
    baseBytes: statSync(parts.base).size,
    runtimeBytes: statSync(parts.runtime).size,
    firstRangeBytes: sizeOf(manifest.ranges[0]),
    cpus: possibleCpus(readFileSync(POSSIBLE_CPUS, 'utf8'), crashKernel.commandLine),
    stageZeroBytes: typeof image === 'string' ? 0 : image.stageZeroBytes,
  });
  if (needed <= manifest.reservedBytes) return needed;
  throw new ArmError(
    `${mebibytes(manifest.reservedBytes)} MiB are reserved for the crash kernel, it needs ${mebibytes(needed)}: ` +
      `boot with crashkernel=${Math.ceil(mebibytes(needed) / 32) * 32}M`,
  );
}

/** Sets the panic sysctls, and notes what has been loaded. */
function noteArmed(
  what: Pick<Armed, 'manifest' | 'commandLine' | 'initramfsBytes' | 'neededBytes'>,
  { lacking, stageZeroAddress, apicIds }: Loaded,
  mark: string,
): Armed {
  const reserved = crashReservations(parseIomem(readFileSync('/proc/iomem', 'utf8')));
  const armed: Armed = {
    ...what,
    mark: { text: mark, address: locateMark(mark, reserved) },
    sysctlsBefore: setPanicSysctls(what.manifest.config),
    stageZeroAddress,
    apicIds: apicIds && [...apicIds],
    lacking,
  };
  replaceFile(ARMED_PATH, `${JSON.stringify(armed)}\n`);
  return armed;
}

function sizeOf(range: Range | undefined): number {
  return range === undefined ? 0 : range.end - range.start;
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}

/**
 * The system is as it was before it was armed, but for the crash kernel.
 * @returns makes it as it was when it was armed
 */
export function setAside(armed: Armed, { path = ARMED_PATH, sysctls = '/proc/sys/kernel' } = {}): () => void {
  const replaced = restoreSysctls(armed.sysctlsBefore, armed.manifest.config, sysctls);
  rmSync(path, { force: true });
  return () => {
    writeSysctls(replaced, sysctls);
    replaceFile(path, `${JSON.stringify(armed)}\n`);
  };
}

/**
 * Unloads the crash kernel and puts the panic sysctls back.
 * @returns whether anything was loaded
 * @throws StateError, when it is unloaded, if the note of how the sysctls were is damaged
 */
export function disarm(): boolean {
  using _lock = lockDirectory(CACHE_DIRECTORY);
  const loaded = isCrashKernelLoaded();
  try {
    const armed = readArmed();
    if (armed !== undefined) setAside(armed);
  } finally {
    rmSync(ARMED_PATH, { force: true });
    if (loaded) unloadCrashKernel();
  }
  return loaded;
}
