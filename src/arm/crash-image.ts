import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type CrashSegment,
  crashLoadRange,
  crashReservations,
  type ImagePlan,
  KEXEC_ON_CRASH,
  type KexecImage,
  planCrashImage,
  readCrashNotes,
  readEfiState,
  type Segment,
} from '../kexec/index.ts';
import {
  type HaltText,
  noteOf,
  type StageZeroNeeds,
  stageZeroArea,
  stageZeroBytes,
} from '../stage-zero/area.ts';
import { answerTicks, xsaveBytes } from '../stage-zero/processors.ts';
import { ArmError } from './errors.ts';
import { type BootProcessorSetting, findHaltText } from './halt-text.ts';
import { type IomemEntry, parseIomem } from './iomem.ts';
import { kernelAddresses } from './kernel-addresses.ts';
import {
  type Lacking,
  lackingWithStageZero,
  type Processors,
  readProcessors,
  stageZeroObstacle,
} from './lacking.ts';
import { lowMemory } from './low-memory.ts';

const BOOT_PARAMS = 'sys/kernel/boot_params/data';
/** As many as the kernel's own loader hands over (RNG_SEED_LENGTH in arch/x86/kernel/kexec-bzimage64.c). */
const RNG_SEED_BYTES = 32;
const STAGE_ZERO = 'stage-zero';

/** A crash kernel to load, and what comes with it. */
export interface CrashKernel {
  /** Path of a bzImage. */
  readonly image: string;
  /** Path of the initramfs. */
  readonly initramfs: string;
  readonly commandLine: string;
  /** Whether the boot processor may be called when another one panics. */
  readonly bootProcessor: BootProcessorSetting;
}

/** What is loaded, and what it lacks. */
export interface CrashImage {
  readonly image: KexecImage;
  readonly lacking: Lacking;
  /** Reserved memory that stage zero takes. */
  readonly stageZeroBytes: number;
  /** APIC ids of the processors whose registers stage zero saves. */
  readonly apicIds: readonly number[];
}

/**
 * What is loaded for a crash kernel that stage zero runs before.
 * @param root directory that holds `proc` and `sys`
 * @throws KexecError if it does not fit; ArmError if lockdown, the processors or encryption do not allow it;
 *   other errors, of Node.js too, if something cannot be read or is not as it is believed to be
 */
export function crashImage(
  { image, initramfs, commandLine, bootProcessor }: CrashKernel,
  root = '/',
): CrashImage {
  const resources = parseIomem(readFileSync(join(root, 'proc/iomem'), 'utf8'));
  const processors = readProcessors(root);
  const { info, cpus, isSingle } = processors;
  const obstacle = stageZeroObstacle(info, root);
  if (obstacle !== undefined) throw new ArmError(obstacle);
  const halt = isSingle ? undefined : findHaltText(bootProcessor, resources, root);
  const plan = planCrashImage({
    image: readFileSync(image),
    imageName: image,
    initrd: readFileSync(initramfs),
    commandLine,
    resources,
    bootParams: readFileSync(join(root, BOOT_PARAMS)),
    efi: readEfiState(root),
    rngSeed: randomBytes(RNG_SEED_BYTES),
    fiveLevels: info.flags.has('la57'),
    notes: readCrashNotes(root),
    ...kernelAddresses(resources, root),
    extra: [
      stageZeroSegment(processors, resources, typeof halt === 'string' ? undefined : halt, bootId(root)),
    ],
  });
  const stageZero = stageZeroOf(plan);
  return {
    image: {
      // It is entered at its beginning.
      entry: stageZero.address,
      segments: plan.segments,
      flags: KEXEC_ON_CRASH,
      within: crashLoadRange(resources),
    },
    lacking: lackingWithStageZero(processors, resources, halt),
    stageZeroBytes: stageZero.memoryBytes,
    apicIds: cpus.map(({ apicId }) => apicId),
  };
}

function stageZeroOf({ segments }: ImagePlan): Segment {
  const segment = segments.find(({ name }) => name === STAGE_ZERO);
  if (segment === undefined) throw new ArmError('the plan of the crash kernel lacks stage zero');
  return segment;
}

/** kernel, initrd, boot-params and elfcorehdr: what it checks. */
const CHECKED_SEGMENTS = 4;

function stageZeroSegment(
  { info, cpus }: Processors,
  resources: readonly IomemEntry[],
  haltText: HaltText | undefined,
  boot: Buffer,
): CrashSegment {
  const needs: StageZeroNeeds = {
    cpus,
    xsaveBytes: xsaveBytes(info),
    reserved: crashReservations(resources),
    segments: CHECKED_SEGMENTS,
  };
  const memoryBytes = stageZeroBytes(needs);
  const note = noteOf(0);
  return {
    name: STAGE_ZERO,
    memoryBytes,
    kept: true,
    notes: [{ offset: note.address, bytes: note.bytes }],
    loads: [{ offset: 0, bytes: memoryBytes }],
    content: ({ own, segments, entry, bootParams }) =>
      stageZeroArea({
        ...needs,
        address: own.start,
        loaded: segments,
        kernelEntry: entry,
        bootParams,
        lowMemory: lowMemory(resources),
        haltText,
        fiveLevels: info.flags.has('la57'),
        answerTicks: answerTicks(info),
        bootId: boot,
      }),
  };
}

function bootId(root: string): Buffer {
  const text = readFileSync(join(root, 'proc/sys/kernel/random/boot_id'), 'utf8');
  return Buffer.from(text.trim().replaceAll('-', ''), 'hex');
}
