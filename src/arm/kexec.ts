import { existsSync, readFileSync } from 'node:fs';
import { messageOf } from '../system/thrown.ts';
import { findProgram, runProgram } from './command.ts';
import { ArmError } from './errors.ts';

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

/**
 * Loads a crash kernel in place of the one that may be loaded, which the kernel unloads first: meanwhile
 * there is none. Done through kexec_file_load(2), which also takes a kernel under lockdown if it is signed,
 * else through kexec_load(2).
 * @throws ArmError if the kernel does not take it
 */
export function loadCrashKernel(image: string, initramfs: string, commandLine: string): void {
  const kexec = requireKexec();
  const args = [`--initrd=${initramfs}`, `--command-line=${commandLine}`, image];
  try {
    runProgram(kexec, ['-p', '-s', ...args]);
  } catch (first) {
    try {
      runProgram(kexec, ['-p', '-c', ...args]);
    } catch (second) {
      throw new ArmError(`the crash kernel cannot be loaded\n  ${messageOf(first)}\n  ${messageOf(second)}`);
    }
  }
  if (!isCrashKernelLoaded()) throw new ArmError('kexec ended well, but /sys/kernel/kexec_crash_loaded is 0');
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
