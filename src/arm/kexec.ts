import { existsSync, readFileSync } from 'node:fs';
import { KexecError, kexecLoad } from '../kexec/index.ts';
import { messageOf } from '../system/thrown.ts';
import { findProgram, runProgram } from './command.ts';
import { type CrashKernel, crashImage } from './crash-image.ts';
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

/** What a crash kernel was loaded with, and what it will not have. */
export interface Loaded extends Lacking {
  /** Physical address of stage zero. */
  readonly stageZeroAddress?: number;
}

/**
 * Loads a crash kernel in place of the one that may be loaded, which the kernel unloads first: meanwhile
 * there is none. Done through kexec_load(2), with stage zero; where that cannot be, through
 * kexec_file_load(2), which also takes a kernel under lockdown if it is signed.
 * @throws ArmError if the kernel takes neither
 */
export function loadCrashKernel(crashKernel: CrashKernel): Loaded {
  const loaded = loadWithStageZero(crashKernel);
  if (loaded.stageZero !== undefined) loadFile(crashKernel, loaded.stageZero);
  if (!isCrashKernelLoaded())
    throw new ArmError('the kernel took it, but /sys/kernel/kexec_crash_loaded is 0');
  return loaded;
}

/** Nothing is loaded if it lacks stage zero. */
function loadWithStageZero(crashKernel: CrashKernel): Loaded {
  try {
    const { image, bootProcessorLost } = crashImage(crashKernel);
    kexecLoad(image);
    return { stageZeroAddress: image.entry, bootProcessor: bootProcessorLost };
  } catch (error) {
    if (error instanceof KexecError || error instanceof ArmError) return { stageZero: error.message };
    throw error;
  }
}

function loadFile({ image, initramfs, commandLine }: CrashKernel, before: string): void {
  const args = ['-p', '-s', `--initrd=${initramfs}`, `--command-line=${commandLine}`, image];
  try {
    runProgram(requireKexec(), args);
  } catch (error) {
    throw new ArmError(`the crash kernel cannot be loaded\n  ${before}\n  ${messageOf(error)}`);
  }
}

/** Unloads the crash kernel: under lockdown only the call that takes signed kernels is there. */
export function unloadCrashKernel(): void {
  const kexec = requireKexec();
  try {
    runProgram(kexec, ['-p', '-s', '-u']);
  } catch (error) {
    if (!(error instanceof ArmError)) throw error;
    runProgram(kexec, ['-p', '-c', '-u']);
  }
}

function requireKexec(): string {
  const kexec = findProgram('kexec');
  if (kexec === undefined) throw new ArmError('kexec is not installed: apt-get install kexec-tools');
  return kexec;
}
