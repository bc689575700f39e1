import { installedServiceOf } from '../config/service-units.ts';
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
}

/**
 * Checks processes of this machine. What looks, this process, is left out: it would not be there.
 *
 * @throws FormatError with a sentence if the kernel does not show its memory
 */
export async function checkThisMachine(
  { roots, includeDescendants }: Pick<Targets, 'roots' | 'includeDescendants'>,
  { criu, hasStageZero, sandboxes }: Machine,
  patience?: Patience,
): Promise<Checked> {
  const living = livingKernel();
  try {
    const request = {
      ...{ roots, includeDescendants, criu, hasStageZero },
      services: { sandboxes, serviceOf: installedServiceOf },
      without: new Set([process.pid]),
      leased: leasedHere(),
    };
    const conclusions = await checkProcesses(() => living.look(), request, patience);
    return { conclusions, release: living.look().release };
  } finally {
    living.close();
  }
}
