import { accessSync, constants, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { cacheKey, makeCacheDirectory } from './cache.ts';
import { runCommand } from './command.ts';
import type { GuestImage } from './image.ts';
import type { Progress } from './progress.ts';
import type { Qemu } from './qemu.ts';

export type Accelerator = 'kvm' | 'tcg';

/** A kernel without a root file system gets here in a second or two under KVM that works. */
const REACHED = /Unable to mount root fs/;
/** What QEMU says when KVM cannot go on; it would then stand still for ever. */
const FAILED = /KVM internal error|KVM: entry failed|failed to initialize kvm|error: kvm/i;
const PROBE_SECONDS = 8;

/**
 * KVM where a guest kernel really boots with it, else TCG. Some hosts (virtual machines without nested
 * virtualisation of their own) open /dev/kvm and create virtual CPUs, and then fail in the guest's first
 * instructions: only a boot tells. The answer is kept for as long as the host runs.
 */
export async function chooseAccelerator(
  qemu: Qemu,
  image: GuestImage,
  progress: Progress,
): Promise<Accelerator> {
  if (!canOpenKvm()) return 'tcg';
  const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const key = cacheKey([release(), bootId, qemu.version, image.kernelRelease]);
  const answer = join(makeCacheDirectory('kvm'), key);
  if (existsSync(answer)) return readFileSync(answer, 'utf8') === 'kvm' ? 'kvm' : 'tcg';
  progress.step('trying whether KVM works here');
  const accelerator = (await kernelBootsUnderKvm(qemu, image)) ? 'kvm' : 'tcg';
  writeFileSync(answer, accelerator);
  progress.step(
    accelerator === 'kvm' ? 'it does' : 'it does not: guests are emulated (TCG), several times slower',
  );
  return accelerator;
}

function canOpenKvm(): boolean {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

async function kernelBootsUnderKvm(qemu: Qemu, image: GuestImage): Promise<boolean> {
  const args = [
    ...qemu.firmwareArguments,
    ...['-accel', 'kvm', '-cpu', 'host', '-machine', 'q35', '-smp', '2', '-m', '512'],
    ...['-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...['-kernel', image.kernel, '-append', 'console=ttyS0 panic=-1'],
  ];
  const { stdout } = await runCommand(qemu.system, args, {
    env: qemu.environment,
    timeoutSeconds: PROBE_SECONDS,
    stopWhen: new RegExp(`${REACHED.source}|${FAILED.source}`, 'i'),
  });
  return REACHED.test(stdout);
}

/** QEMU's arguments for an accelerator. */
export function acceleratorArguments(accelerator: Accelerator): string[] {
  return accelerator === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', 'tcg,thread=multi', '-cpu', 'max'];
}
