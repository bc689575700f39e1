import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { HaltText, StageZeroCpu } from '../stage-zero/area.ts';
import { type CpuInfo, parseCpuInfo, processorObstacle, stageZeroCpus } from '../stage-zero/processors.ts';
import { lockdownMode } from '../system/lockdown.ts';
import type { Finding } from './finding.ts';
import { type BootProcessorSetting, findHaltText, isKnownFirmware } from './halt-text.ts';
import { type IomemEntry, parseIomem } from './iomem.ts';
import { lowMemory } from './low-memory.ts';
import { encryptionObstacle, encryptionProblem } from './memory-encryption.ts';

/** What a crash kernel that was loaded will not have: the end of a sentence each. */
export interface Lacking {
  /** Why there is no stage zero, so that what computes on any processor is lost. */
  readonly stageZero?: string | undefined;
  /** Why the boot processor is not called, so that what computes there is lost if another one panics. */
  readonly bootProcessor?: string | undefined;
  /** Why no other processor is called either, so that what computes there is lost. */
  readonly otherProcessors?: string | undefined;
  /** Why what computes on a processor is lost that came after arming. */
  readonly newProcessors?: string | undefined;
}

/** What would be lost of processes that compute on a CPU at a panic: a line; undefined if nothing. */
export function lostComputing({
  stageZero,
  bootProcessor,
  otherProcessors,
  newProcessors,
}: Lacking): string | undefined {
  if (stageZero !== undefined)
    return `processes that compute on a CPU at a panic would be lost: ${stageZero}`;
  const lost = (where: string, why: string | undefined): string[] =>
    why === undefined ? [] : [`processes that compute on ${where} would be lost: ${why}`];
  const sentences = [
    ...lost('the boot processor when another one panics', bootProcessor),
    ...lost('the others, but the one that panics,', otherProcessors),
    ...lost('a CPU that is new since the system was armed', newProcessors),
  ];
  return sentences.length === 0 ? undefined : sentences.join('; ');
}

/**
 * Which processors are online that stage zero does not know: the end of a sentence; undefined if none.
 * @param apicIds those that it knows; undefined if there is none
 */
export function newProcessors(apicIds: readonly number[] | undefined, root = '/'): string | undefined {
  if (apicIds === undefined) return undefined;
  const { info } = readProcessors(root);
  const unknown = info.apicIds.filter((id) => !apicIds.includes(id));
  if (unknown.length === 0) return undefined;
  const ids = unknown.toSorted((a, b) => a - b).join(', ');
  return `stage zero does not know the APIC id${unknown.length === 1 ? '' : 's'} ${ids}; run otherworld arm again`;
}

/**
 * What a crash kernel lacks that has stage zero. An id that the xAPIC cannot call (255 and more) is no
 * reason: without x2APIC the kernel cannot start such a processor either (default_apic_id_valid).
 * @param halt where the boot processor is halted, or why it is not called from there; undefined: no need to
 */
export function lackingWithStageZero(
  { isSingle }: Pick<Processors, 'isSingle'>,
  resources: readonly IomemEntry[],
  halt: HaltText | string | undefined,
): Lacking {
  if (isSingle) return {};
  return {
    bootProcessor: typeof halt === 'string' ? halt : undefined,
    otherProcessors: lowMemory(resources) === undefined ? NO_LOW_MEMORY : undefined,
  };
}

const NO_LOW_MEMORY = 'there are no 16 KiB of RAM below 640 KiB for them to begin in';

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
  const { stageZero, bootProcessor, otherProcessors } = expectedLacking(processors, release, setting, root);
  if (stageZero !== undefined) {
    const todo =
      encryptionProblem(root) === undefined
        ? 'arming works without stage zero; a process that computes on a CPU at a panic does not come back'
        : 'see memory encryption: no process would come back';
    return { what, state: 'advice', found: `would be lost: ${stageZero}`, todo };
  }
  const saved = 'stage zero saves their registers';
  if (processors.isSingle) return { what, state: 'good', found: saved };
  if (otherProcessors !== undefined) {
    const found = `${saved}, but only those of the CPU that panics${bootProcessor === undefined ? ' and of the boot processor' : ''}`;
    const todo = [otherProcessors, bootProcessor].filter((reason) => reason !== undefined).join('; ');
    return { what, state: 'advice', found, todo };
  }
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

/** Why there can be no stage zero, as far as it can be told before arming: the end of a sentence. */
export function expectedObstacle({ info }: Processors, release: string, root = '/'): string | undefined {
  return stageZeroObstacle(info, root) ?? missingCall(release, root);
}

function expectedLacking(
  processors: Processors,
  release: string,
  setting: BootProcessorSetting,
  root: string,
): Lacking {
  const obstacle = expectedObstacle(processors, release, root);
  if (obstacle !== undefined) return { stageZero: obstacle };
  if (processors.isSingle) return {};
  const resources = parseIomem(readFileSync(join(root, 'proc/iomem'), 'utf8'));
  return lackingWithStageZero(processors, resources, findHaltText(setting, resources, root));
}

/** A kernel may have kexec_file_load(2) alone. */
function missingCall(release: string, root: string): string | undefined {
  const path = join(root, `boot/config-${release}`);
  if (!existsSync(path) || /^CONFIG_KEXEC=y$/m.test(readFileSync(path, 'utf8'))) return undefined;
  return 'the kernel was built without kexec_load(2) (CONFIG_KEXEC)';
}
