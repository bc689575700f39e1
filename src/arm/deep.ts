import { spawnSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { INSTALLATION } from '../config/installation.ts';
import { CACHE_DIRECTORY } from '../config/paths.ts';
import { findProgram } from './command.ts';
import { splitCommandLine } from './command-line.ts';
import type { CpioEntry } from './cpio.ts';
import { ArmError } from './errors.ts';
import { assembleInitramfs } from './initramfs.ts';

/**
 * The root file system of the trial: initramfs-tools mounts by the script of this name (`boot=`,
 * initramfs-tools(7)).
 */
const BOOT_SCRIPT = 'otherworld-deep';
/** init.sh says it when its program has run, and ends the machine. */
const PASSED = 'otherworld: deep: the program runs';
/** An emulated processor on a busy host takes minutes. */
const LONGEST_BOOT_SECONDS = 900;
const MACHINE = ['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio'];
/** The second is emulation, and works everywhere. */
const ACCELERATORS = [
  ['-accel', 'kvm', '-cpu', 'host'],
  ['-accel', 'tcg', '-cpu', 'max'],
];
/** A copy of the initramfs is the root file system, besides what the crash kernel has to hold. */
const MORE_MEMORY_BYTES = 256 * 2 ** 20;

/** Parameters about this machine's memory, disks and processors, which the trial's machine does not have. */
const MACHINES_OWN =
  /^(?:root|rootflags|rootfstype|rootdelay|ro|rw|resume|memmap|disable_cpu_apicid|lpj|console|quiet|panic|boot|ip)(?:=|$)/;

/** A QEMU that can be started. */
export interface DeepQemu {
  readonly system: string;
  readonly environment: NodeJS.ProcessEnv;
  /** Where its firmware lies. */
  readonly firmwareArguments: readonly string[];
}

/**
 * The system's QEMU, else another one that is there.
 * @param unpacked finds one that is not installed
 * @param installed path of the system's; empty if it has none
 * @throws ArmError if there is none
 */
export async function requireQemu(
  unpacked: () => Promise<DeepQemu | undefined>,
  installed = findProgram('qemu-system-x86_64') ?? '',
): Promise<DeepQemu> {
  if (installed !== '') return { system: installed, environment: process.env, firmwareArguments: [] };
  const other = await unpacked();
  if (other === undefined)
    throw new ArmError('there is no QEMU to boot the crash world in: apt-get install qemu-system-x86');
  return other;
}

/** The trial's command line: that of the crash kernel without what belongs to this machine. */
export function deepCommandLine(crash: string): string {
  const kept = splitCommandLine(crash).filter((parameter) => !MACHINES_OWN.test(parameter));
  return [...kept, `root=none boot=${BOOT_SCRIPT}`, 'console=ttyS0 panic=-1 otherworld.deep'].join(' ');
}

/** What is booted. */
export interface DeepBoot {
  readonly image: string;
  readonly base: string;
  readonly own: readonly CpioEntry[];
  /** Of the crash kernel. */
  readonly commandLine: string;
  /** That it will have. */
  readonly memoryBytes: number;
}

/**
 * Boots a crash kernel with its initramfs in QEMU, where the initramfs itself stands for the root file
 * system, until init.sh has run the program.
 * @returns how long it took, as a sentence
 * @throws ArmError with the end of the console if it does not come so far
 */
export function bootInQemu(qemu: DeepQemu, { image, base, own, commandLine, memoryBytes }: DeepBoot): string {
  const script = {
    path: `scripts/${BOOT_SCRIPT}`,
    mode: 0o500,
    data: readFileSync(join(INSTALLATION, 'src/arm/initramfs/deep.sh')),
  };
  const initramfs = join(CACHE_DIRECTORY, 'deep-initramfs.img');
  const start = performance.now();
  try {
    assembleInitramfs([], base, [...own, script], initramfs);
    const memory = Math.ceil((memoryBytes + MORE_MEMORY_BYTES) / 2 ** 20);
    const boot = ['-kernel', image, '-initrd', initramfs, '-append', deepCommandLine(commandLine)];
    let output = '';
    let isLate = false;
    for (const accelerator of ACCELERATORS) {
      ({ output, isLate } = runQemu(qemu, [...MACHINE, '-m', String(memory), ...accelerator, ...boot]));
      if (output.includes(PASSED))
        return `booted to its program in ${Math.round((performance.now() - start) / 1000)} s`;
      // Where there is a /dev/kvm that does not work, not even a kernel starts.
      if (output.includes('Linux version ')) break;
    }
    const end = output.trim().split(/\r?\n/).slice(-12).join('\n  ');
    const limit = isLate ? ` within ${LONGEST_BOOT_SECONDS} s, in which it was still at work` : '';
    throw new ArmError(
      `the crash world did not come to its program in QEMU${limit}; the end of its console:\n  ${end}`,
    );
  } finally {
    rmSync(initramfs, { force: true });
  }
}

/** What QEMU and the machine in it have said, and whether it was ended for the time that it took. */
function runQemu(qemu: DeepQemu, args: readonly string[]): { output: string; isLate: boolean } {
  const { stdout, stderr, error } = spawnSync(qemu.system, [...qemu.firmwareArguments, ...args], {
    env: qemu.environment,
    encoding: 'latin1',
    maxBuffer: 64 * 2 ** 20,
    timeout: LONGEST_BOOT_SECONDS * 1000,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const isLate = error !== undefined && 'code' in error && error.code === 'ETIMEDOUT';
  return { output: `${stdout}${stderr}`, isLate };
}
