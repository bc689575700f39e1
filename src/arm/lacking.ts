import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StageZeroCpu } from '../stage-zero/area.ts';
import { type CpuInfo, parseCpuInfo, processorObstacle, stageZeroCpus } from '../stage-zero/processors.ts';
import type { Finding } from './finding.ts';
import { type BootProcessorSetting, findHaltText, isKnownFirmware } from './halt-text.ts';
import { parseIomem } from './iomem.ts';
import { encryptionObstacle } from './memory-encryption.ts';
import { lockdownMode } from './obstacles.ts';

/** What a crash kernel that was loaded will not have: the end of a sentence each. */
export interface Lacking {
  /** Why there is no stage zero, so that what computes on any processor is lost. */
  readonly stageZero?: string | undefined;
  /** Why the boot processor is not called, so that what computes there is lost if another one panics. */
  readonly bootProcessor?: string | undefined;
}

/** What would be lost of processes that compute on a CPU at a panic: a sentence; undefined if nothing. */
export function lostComputing({ stageZero, bootProcessor }: Lacking): string | undefined {
  if (stageZero !== undefined)
    return `processes that compute on a CPU at a panic would be lost: ${stageZero}`;
  if (bootProcessor === undefined) return undefined;
  return `processes that compute on the boot processor when another one panics would be lost: ${bootProcessor}`;
}

/** The machine's processors as stage zero needs to know them. */
export interface Processors {
  readonly info: CpuInfo;
  readonly cpus: readonly StageZeroCpu[];
  /** With a single one, it is the boot processor that panics. */
  readonly isSingle: boolean;
}

/** Reads /proc/cpuinfo and the firmware's table of interrupt controllers. */
export function readProcessors(root = '/'): Processors {
  const info = parseCpuInfo(readFileSync(join(root, 'proc/cpuinfo'), 'utf8'));
  const madt = join(root, 'sys/firmware/acpi/tables/APIC');
  const cpus = stageZeroCpus(info, existsSync(madt) ? readFileSync(madt) : undefined);
  return { info, cpus, isSingle: cpus.length === 1 };
}

/** Why there can be no stage zero on this machine: the end of a sentence; undefined if nothing is known. */
export function stageZeroObstacle(info: CpuInfo, root = '/'): string | undefined {
  const mode = lockdownMode(root);
  if (mode !== undefined) return `under lockdown (${mode}) the kernel does not allow stage zero`;
  return processorObstacle(info) ?? encryptionObstacle(root);
}

/** Whether processes that compute at a panic would come back, as far as it can be told before arming. */
export function computingProcesses(release: string, setting: BootProcessorSetting, root = '/'): Finding {
  const what = 'computing processes';
  const processors = readProcessors(root);
  const { stageZero, bootProcessor } = expectedLacking(processors, release, setting, root);
  if (stageZero !== undefined) {
    const todo =
      'arming works without stage zero; a process that computes on a CPU at a panic does not come back';
    return { what, state: 'advice', found: `would be lost: ${stageZero}`, todo };
  }
  const saved = 'stage zero saves their registers';
  if (processors.isSingle) return { what, state: 'good', found: saved };
  if (bootProcessor !== undefined) {
    const found = `${saved}, but not those on the boot processor when another one panics`;
    return { what, state: 'advice', found, todo: bootProcessor };
  }
  const found = `${saved}; it calls the boot processor by a system management interrupt`;
  if (isKnownFirmware(root)) return { what, state: 'good', found };
  const todo =
    'not tried with this firmware: if a panic only resets the machine, set crash-kernel.boot-processor = "off"';
  return { what, state: 'advice', found, todo };
}

function expectedLacking(
  { info, isSingle }: Processors,
  release: string,
  setting: BootProcessorSetting,
  root: string,
): Lacking {
  const obstacle = stageZeroObstacle(info, root) ?? missingCall(release, root);
  if (obstacle !== undefined) return { stageZero: obstacle };
  if (isSingle) return {};
  const halt = findHaltText(setting, parseIomem(readFileSync(join(root, 'proc/iomem'), 'utf8')), root);
  return { bootProcessor: typeof halt === 'string' ? halt : undefined };
}

/** A kernel may have kexec_file_load(2) alone. */
function missingCall(release: string, root: string): string | undefined {
  const path = join(root, `boot/config-${release}`);
  if (!existsSync(path) || /^CONFIG_KEXEC=y$/m.test(readFileSync(path, 'utf8'))) return undefined;
  return 'the kernel was built without kexec_load(2) (CONFIG_KEXEC)';
}
