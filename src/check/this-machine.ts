import { liveProcesses } from '../arm/live-processes.ts';
import { liveParents } from '../arm/protected-need.ts';
import { allowedLosses } from '../config/losses.ts';
import { configuredRules, loadRules } from '../config/protection.ts';
import { installedServiceOf } from '../config/service-units.ts';
import type { AllowedLosses } from '../model/loss.ts';
import { type ImagesRoom, imagesRoom } from '../report/images-room.ts';
import { messageOf } from '../system/thrown.ts';
import { findUser } from '../system/users.ts';
import { livingKernel } from '../vmcore/open.ts';
import { checkProcesses, type Patience } from './check.ts';
import type { Conclusion } from './conclude.ts';
import { leasedHere } from './leased-addresses.ts';
import type { Machine } from './machine.ts';
import type { Targets } from './targets.ts';

/** What a check of this machine found. */
export interface Checked {
  readonly conclusions: readonly Conclusion[];
  /** The kernel's release. */
  readonly release: string;
  /** What there is for images; undefined if that cannot be told. */
  readonly room: ImagesRoom | undefined;
  /** Why it cannot be told: a sentence. */
  readonly unknownRoom?: string;
}

/** What there is for images. Where a file system does not say, the rest is checked all the same. */
export function roomHere(
  directory: string,
  look: (directory: string) => ImagesRoom = imagesRoom,
): Pick<Checked, 'room' | 'unknownRoom'> {
  try {
    return { room: look(directory) };
  } catch (error) {
    const unknownRoom = `whether there is room for the images cannot be told: ${messageOf(error)}`;
    return { room: undefined, unknownRoom };
  }
}

/**
 * What processes may lose as the rules are now, and by the configuration that the crash world would go by.
 */
function lossesNow(config: Machine['config']): AllowedLosses {
  const parents = new Map(liveParents().map(({ pid, parent }) => [pid, parent]));
  const rules = [...configuredRules(config, findUser).rules, ...loadRules().rules];
  const processes = liveProcesses().map((one) => ({ ...one, parentPid: parents.get(one.pid) }));
  return allowedLosses(config, rules, processes);
}

/**
 * Checks processes of this machine. What looks, this process, is left out: it would not be there.
 *
 * @throws FormatError with a sentence if the kernel does not show its memory
 */
export async function checkThisMachine(
  { roots, includeDescendants }: Pick<Targets, 'roots' | 'includeDescendants'>,
  { criu, hasStageZero, config }: Machine,
  patience?: Patience,
): Promise<Checked> {
  const found = roomHere(config.images.directory);
  const living = livingKernel();
  try {
    const request = {
      ...{ roots, includeDescendants, criu, hasStageZero },
      services: { sandboxes: config.services.sandboxes, serviceOf: installedServiceOf },
      losses: lossesNow(config),
      timeLimitMinutes: config['crash-kernel']['time-limit-minutes'],
      without: new Set([process.pid]),
      leased: leasedHere(),
      room: found.room,
    };
    const conclusions = await checkProcesses(() => living.look(), request, patience);
    return { conclusions, release: living.look().release, ...found };
  } finally {
    living.close();
  }
}
