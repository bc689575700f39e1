import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type ArmProgress, arm, buildInAdvance } from '../arm/arm.ts';
import { lostComputing } from '../arm/lacking.ts';
import { INSTALLATION_REMEDY, installationProblem } from '../arm/own-installation.ts';
import { lookAtRoom, roomSentences } from '../arm/room-for-images.ts';
import { protectedNow } from '../arm/status.ts';
import { installUnits } from '../arm/units.ts';
import { loadConfig } from '../config/config.ts';
import { INSTALLATION } from '../config/installation.ts';
import type { Armed } from '../config/manifest.ts';
import type { Config } from '../config/schema.ts';
import { configuredLimits, prune } from '../report/prune.ts';
import { beginStep } from '../report/steps.ts';
import { StateError } from '../system/state-error.ts';
import { UsageError } from './arguments.ts';
import { requireRoot } from './root.ts';

interface ArmOptions {
  install?: boolean;
  buildOnly?: boolean;
  kernel?: string;
  unchecked?: boolean;
  json?: boolean;
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

async function run(options: ArmOptions): Promise<void> {
  requireRoot('arm');
  if (options.buildOnly && options.install) {
    throw new UsageError('--install arms as well, and --build-only loads nothing: one of the two');
  }
  const config = loadConfig();
  beginStep('looking at this machine');
  const progress = (step: string): void => {
    console.error(`otherworld: ${step}`);
    beginStep(step);
  };
  if (options.kernel !== undefined) checkKernel(options.kernel, options.buildOnly === true);
  if (options.buildOnly) {
    await buildInAdvance(options.kernel ?? release(), progress);
    return;
  }
  if (options.install) requireOwnInstallation();
  const armed = await arm(config, progress, options.unchecked === true);
  // The next boot is to be armed whatever comes of the rest.
  if (options.install) for (const path of installUnits(options.unchecked === true)) progress(`wrote ${path}`);
  beginStep('removing images and incidents that are over their limits');
  endOldImages(config, progress);
  beginStep('looking whether there is room for images');
  roomSentences(lookAtRoom(() => protectedNow(config), config)).forEach(progress);
  if (options.json) {
    console.log(JSON.stringify(armed, undefined, 2));
    return;
  }
  console.log(describeArmed(armed));
}

/** What is loaded, in a line, and what would be lost nevertheless, in another. */
export function describeArmed({
  manifest: { release: kernel, reservedBytes },
  neededBytes,
  lacking,
}: Pick<Armed, 'manifest' | 'neededBytes' | 'lacking'>): string {
  const lost = lostComputing(lacking);
  return [
    `armed for ${kernel}: ${mebibytes(reservedBytes)} reserved, ${mebibytes(neededBytes)} needed`,
    ...(lost === undefined ? [] : [lost]),
  ].join('\n');
}

/**
 * What a resurrection that was broken off by a reset has left, and what is over its limits. The system is
 * armed whatever comes of it.
 */
function endOldImages(config: Config, progress: ArmProgress): void {
  try {
    prune(configuredLimits(config), { images: config.images.directory }).problems.forEach(progress);
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    progress(error.message);
  }
}

function requireOwnInstallation(): void {
  const problem = installationProblem();
  if (problem === undefined) return;
  throw new Error(
    `with --install root would run ${INSTALLATION} at every boot, and ${problem}: ${INSTALLATION_REMEDY}, and call it from there`,
  );
}

function checkKernel(kernel: string, buildOnly: boolean): void {
  if (!buildOnly)
    throw new UsageError('--kernel goes with --build-only: only the running kernel can be armed');
  const modules = join('/lib/modules', kernel);
  if (!existsSync(modules)) throw new Error(`there is no kernel ${kernel}: ${modules} is not there`);
}

/** `otherworld arm` */
export function registerArm(program: Command): void {
  program
    .command('arm')
    .description(
      'load the crash kernel that brings processes back, and make the kernel panic where it would limp on',
    )
    .option('--install', 'also arm at every boot, and prepare when a kernel is installed')
    .option('--build-only', 'build the crash initramfs into the cache, load nothing')
    .option('--kernel <release>', 'with --build-only: the kernel to build for (default: the running one)')
    .option('--unchecked', 'arm also on a kernel of a series that was not checked (see docs/arming.md)')
    .option('--json', 'print what was loaded as JSON')
    .action(run);
}
