import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import type { Armed, Manifest, MemoryRange } from '../config/manifest.ts';
import { ARMED_PATH, CACHE_DIRECTORY, INCIDENTS_DIRECTORY, STATE_DIRECTORY } from '../config/paths.ts';
import { configuredRules, type ProtectionRule } from '../config/protection.ts';
import type { Config } from '../config/schema.ts';
import { uncheckedRelease } from '../linux/kernel-releases.ts';
import { makeImagesDirectory } from '../report/images.ts';
import { lockDirectory } from '../system/directory-lock.ts';
import { StateError } from '../system/state-error.ts';
import { replaceFile } from '../system/state-file.ts';
import { findUser } from '../system/users.ts';
import { encodeProfile } from '../vmcore/profile.ts';
import { takeProfile } from '../vmcore/take-profile.ts';
import { buildBundle } from './bundle.ts';
import { findProgram, runProgram } from './command.ts';
import { bootApicId, crashCommandLine, loopsPerJiffy, timerWorks } from './command-line.ts';
import type { CpioEntry } from './cpio.ts';
import { ArmError } from './errors.ts';
import { assembleInitramfs, buildBaseInitramfs, type PayloadFile } from './initramfs.ts';
import { parseIomem, reclaimableRanges } from './iomem.ts';
import {
  isCrashKernelLoaded,
  kernelImage,
  loadCrashKernel,
  reservedBytes,
  unloadCrashKernel,
} from './kexec.ts';
import { neededBytes, POSSIBLE_CPUS, possibleCpus } from './memory-need.ts';
import { restoreSysctls, setPanicSysctls } from './panic-sysctls.ts';
import { buildRuntime } from './runtime.ts';
import { firmwareHasSrat, SRAT_PATH, singleNodeSrat } from './srat.ts';
import { isCrashWorld, readArmed } from './state.ts';

/** Told before each step that may take more than a second. */
export type Progress = (step: string) => void;

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
export async function prepare(kernelRelease: string, progress: Progress): Promise<Parts> {
  using _lock = lockCache(progress);
  return build(kernelRelease, progress);
}

/** One `arm` at a time: the cache, the crash kernel and the sysctls are changed in several steps. */
function lockCache(progress: Progress): Disposable {
  const onWait = (): void => progress('waiting for another otherworld that arms or builds');
  return lockDirectory(CACHE_DIRECTORY, { timeoutSeconds: LONGEST_BUILD_SECONDS, onWait });
}

async function build(kernelRelease: string, progress: Progress): Promise<Parts> {
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
 * Arms the running system: builds the crash initramfs (or takes it from the cache), loads it with the running kernel's own image as crash
 * kernel, and sets the panic sysctls. Whatever was loaded before is replaced.
 * @param allowUnchecked also a kernel of a series that was not checked
 * @throws ArmError saying what is missing; Error if others can write to the directory of images
 */
export async function arm(config: Config, progress: Progress, allowUnchecked = false): Promise<Armed> {
  using _lock = lockCache(progress);
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
  const parts = await build(release, progress);
  const manifest: Manifest = {
    version: 1,
    release,
    unchecked,
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    armedAt: new Date().toISOString(),
    reservedBytes: reserved,
    ranges,
    config,
    rules,
  };
  mkdirSync(INCIDENTS_DIRECTORY, { recursive: true, mode: 0o700 });
  mkdirSync(STATE_DIRECTORY, { recursive: true, mode: 0o700 });
  progress('loading the crash kernel');
  return load(config, manifest, parts, image, sysctlsBeforeArming(progress));
}

/** The configuration's rules; the crash world has no directory of users to ask. */
function rulesOf(config: Config): ProtectionRule[] {
  const { rules, problems } = configuredRules(config, findUser);
  if (problems.length > 0) throw new ArmError(`the configuration is wrong: ${problems.join('; ')}`);
  return [...rules];
}

/** As `arm` noted them first. */
function sysctlsBeforeArming(progress: Progress): Readonly<Record<string, string>> {
  try {
    return readArmed()?.sysctlsBefore ?? {};
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    progress(`${error.message}; the panic sysctls of now count as those from before`);
    return {};
  }
}

function load(
  config: Config,
  manifest: Manifest,
  parts: Parts,
  image: string,
  sysctls: Readonly<Record<string, string>>,
): Armed {
  const commandLine = commandLineOf(config, manifest.release, manifest.ranges);
  const initramfs = join(CACHE_DIRECTORY, 'crash-initramfs.img');
  const initramfsBytes = assembleInitramfs(
    earlyFiles(),
    parts.base,
    parts.runtime,
    payload(manifest, parts.bundle),
    initramfs,
  );
  const needed = neededBytes({
    initramfsBytes,
    runtimeBytes: statSync(parts.runtime).size,
    firstRangeBytes: sizeOf(manifest.ranges[0]),
    cpus: possibleCpus(readFileSync(POSSIBLE_CPUS, 'utf8'), commandLine),
  });
  if (needed > manifest.reservedBytes) {
    throw new ArmError(
      `${mebibytes(manifest.reservedBytes)} MiB are reserved for the crash kernel, it needs ${mebibytes(needed)}: ` +
        `boot with crashkernel=${Math.ceil(mebibytes(needed) / 32) * 32}M`,
    );
  }
  try {
    loadCrashKernel(image, initramfs, commandLine);
  } finally {
    rmSync(initramfs, { force: true });
  }
  const sysctlsBefore = { ...setPanicSysctls(config), ...sysctls };
  const armed: Armed = { manifest, commandLine, initramfsBytes, neededBytes: needed, sysctlsBefore };
  replaceFile(ARMED_PATH, `${JSON.stringify(armed)}\n`);
  return armed;
}

function commandLineOf(config: Config, release: string, ranges: readonly MemoryRange[]): string {
  const kernelConfig = `/boot/config-${release}`;
  const cpuinfo = readFileSync('/proc/cpuinfo', 'utf8');
  return crashCommandLine({
    main: readFileSync('/proc/cmdline', 'utf8'),
    ranges,
    loopsPerJiffy: loopsPerJiffy(cpuinfo, existsSync(kernelConfig) ? readFileSync(kernelConfig, 'utf8') : ''),
    bootApicId: bootApicId(cpuinfo),
    timerWorks: timerWorks(kernelLog()),
    rebootAfterSeconds: config.panic['reboot-after-seconds'],
    add: config['crash-kernel']['add-parameters'],
    remove: config['crash-kernel']['remove-parameters'],
  });
}

/** The kernel's log of this boot; if its beginning has been overwritten, as the journal has it. */
function kernelLog(): string {
  const ring = runProgram('dmesg', []);
  if (ring.includes('Linux version ') || findProgram('journalctl') === undefined) return ring;
  return runProgram('journalctl', ['--dmesg', '--boot', '--quiet', '--output=cat']);
}

function payload(manifest: Manifest, bundle: string): PayloadFile[] {
  const limit = Math.round(manifest.config['crash-kernel']['time-limit-minutes'] * 60);
  return [
    { name: 'init', data: readFileSync(join(INSTALLATION, 'src/crash-world/init.sh')), mode: 0o700 },
    { name: 'give-up.sh', data: readFileSync(join(INSTALLATION, 'src/crash-world/give-up.sh')) },
    text('reboot-after', manifest.config.panic['reboot-after-seconds']),
    text('reserved-bytes', manifest.reservedBytes),
    text('system-node', process.execPath),
    text('system-modules', join(INSTALLATION, 'node_modules')),
    { name: 'crash-world.mjs', data: readFileSync(bundle) },
    { name: 'profile', data: encodeProfile(takeProfile()) },
    text('time-limit', limit),
    { name: 'manifest.json', data: Buffer.from(JSON.stringify(manifest)) },
  ];
}

/** A file that a shell reads. */
function text(name: string, value: string | number): PayloadFile {
  return { name, data: Buffer.from(`${value}\n`) };
}

/** What the kernel has to have before it counts its memory. */
function earlyFiles(): CpioEntry[] {
  if (firmwareHasSrat()) return [];
  const table = singleNodeSrat(parseIomem(readFileSync('/proc/iomem', 'utf8')));
  return [{ path: SRAT_PATH, mode: 0o400, data: table }];
}

function sizeOf(range: MemoryRange | undefined): number {
  return range === undefined ? 0 : range.end - range.start;
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}

/**
 * Unloads the crash kernel and puts the panic sysctls back.
 * @returns whether anything was loaded
 * @throws StateError, when it is unloaded, if the note of how the sysctls were is damaged
 */
export function disarm(): boolean {
  using _lock = lockDirectory(CACHE_DIRECTORY);
  const loaded = isCrashKernelLoaded();
  if (loaded) unloadCrashKernel();
  try {
    restoreSysctls(readArmed()?.sysctlsBefore ?? {});
  } finally {
    rmSync(ARMED_PATH, { force: true });
  }
  return loaded;
}
