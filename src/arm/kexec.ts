import { existsSync, readFileSync } from 'node:fs';
import { KEXEC_ON_CRASH, type KexecImage, kexecLoad, kexecUnload } from '../kexec/index.ts';
import { messageOf } from '../system/thrown.ts';
import { findProgram, runProgram } from './command.ts';
import { type CrashImage, type CrashKernel, crashImage } from './crash-image.ts';
import { ArmError } from './errors.ts';
import type { Lacking } from './lacking.ts';

/** Whether a crash kernel is loaded, whoever loaded it. */
export function isCrashKernelLoaded(): boolean {
  return readNumber('/sys/kernel/kexec_crash_loaded') === 1;
}

/** Bytes reserved for a crash kernel at boot; 0 if none. */
export function reservedBytes(): number {
  return readNumber('/sys/kernel/kexec_crash_size');
}

function readNumber(path: string): number {
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
}

/** The image of an installed kernel, where Debian puts it. */
export function kernelImage(kernelRelease: string): string {
  return `/boot/vmlinuz-${kernelRelease}`;
}

/** A crash kernel of which everything has been read and laid out. */
export interface PlannedCrashKernel {
  readonly crashKernel: CrashKernel;
  /** With stage zero; or why there is none: the end of a sentence. */
  readonly image: CrashImage | string;
}

/**
 * Plans what is loaded. Nothing is changed. If there can be no stage zero, whatever the reason, the crash
 * kernel is loaded without.
 * @throws TypeError, ReferenceError: what is wrong is the program
 */
export function planCrashKernel(
  crashKernel: CrashKernel,
  plan: (crashKernel: CrashKernel) => CrashImage = (wanted) => crashImage(wanted),
): PlannedCrashKernel {
  try {
    return { crashKernel, image: plan(crashKernel) };
  } catch (error) {
    if (error instanceof TypeError || error instanceof ReferenceError) throw error;
    return { crashKernel, image: messageOf(error) };
  }
}

/** What a crash kernel was loaded with, and what it will not have. */
export interface Loaded {
  readonly lacking: Lacking;
  /** Physical address of stage zero. */
  readonly stageZeroAddress?: number;
  /** APIC ids of the processors whose registers it saves. */
  readonly apicIds?: readonly number[];
}

/** The kernel's two calls that load a crash kernel. */
export interface Loaders {
  /** kexec_load(2). */
  readonly load: (image: KexecImage) => void;
  /** kexec_file_load(2). */
  readonly loadFile: (crashKernel: CrashKernel) => void;
  readonly isLoaded: () => boolean;
}

const LOADERS: Loaders = { load: kexecLoad, loadFile, isLoaded: isCrashKernelLoaded };

/**
 * Loads a crash kernel in place of the one that may be loaded, which the kernel drops first: meanwhile there
 * is none, and after a failure there may be none. Done through kexec_load(2), with stage zero; where that
 * cannot be, through kexec_file_load(2), which also takes a kernel under lockdown if it is signed.
 * @param setAside ends for the time of loading what holds while a crash kernel is loaded; what it returns
 *   puts that back, and is called if the earlier crash kernel turns out to be loaded still
 * @throws ArmError if the kernel takes neither, saying whether anything is loaded now
 */
export function loadCrashKernel(
  { crashKernel, image }: PlannedCrashKernel,
  setAside: () => () => void,
  loaders: Loaders = LOADERS,
): Loaded {
  const putBack = setAside();
  const reason = typeof image === 'string' ? image : failureOf(() => loaders.load(image.image));
  if (reason !== undefined) {
    const other = failureOf(() => loaders.loadFile(crashKernel));
    if (other !== undefined) {
      const isEarlierLoaded = loaders.isLoaded();
      if (isEarlierLoaded) putBack();
      const now = isEarlierLoaded ? 'the one that was loaded before stays' : NOTHING_LOADED;
      throw new ArmError(`the crash kernel cannot be loaded, ${now}\n  ${reason}\n  ${other}`);
    }
  }
  if (!loaders.isLoaded())
    throw new ArmError(`the kernel took it, but /sys/kernel/kexec_crash_loaded is 0: ${NOTHING_LOADED}`);
  if (reason !== undefined || typeof image === 'string') return { lacking: { stageZero: reason } };
  const { lacking, apicIds } = image;
  return { lacking, stageZeroAddress: image.image.entry, apicIds };
}

const NOTHING_LOADED = 'none is loaded now: the system is not armed';

/** What a call was refused for: no error may keep the other one from being tried. */
function failureOf(load: () => void): string | undefined {
  try {
    load();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function loadFile({ image, initramfs, commandLine }: CrashKernel): void {
  const args = ['-p', '-s', `--initrd=${initramfs}`, `--command-line=${commandLine}`, image];
  runProgram(requireKexec(), args);
}

/** The kernel's two calls, as they unload a crash kernel. */
export interface Unloaders {
  /** kexec_load(2). */
  readonly unload: () => void;
  /** kexec_file_load(2). */
  readonly unloadFile: () => void;
}

const UNLOADERS: Unloaders = {
  unload: () => kexecUnload(KEXEC_ON_CRASH),
  unloadFile: () => runProgram(requireKexec(), ['-p', '-s', '-u']),
};

/**
 * Unloads the crash kernel, whichever call has loaded it: under lockdown only that one is there which takes
 * signed kernels.
 * @throws ArmError with what was said against either
 */
export function unloadCrashKernel({ unload, unloadFile }: Unloaders = UNLOADERS): void {
  const reason = failureOf(unload);
  if (reason === undefined) return;
  const other = failureOf(unloadFile);
  if (other !== undefined) throw new ArmError(`the crash kernel cannot be unloaded\n  ${reason}\n  ${other}`);
}

function requireKexec(): string {
  const kexec = findProgram('kexec');
  if (kexec === undefined) throw new ArmError('kexec is not installed: apt-get install kexec-tools');
  return kexec;
}
