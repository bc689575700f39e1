import { swapAreaAt, swapAreaCount, untriedSwap } from '../../linux/readers/swap-areas.ts';
import { VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { type OpenArea, openSwapArea } from '../swap/open-area.ts';
import { SwapStore } from '../swap/swap-store.ts';
import { required, stage } from './stage-list.ts';

/**
 * Opens the dead kernel's swap areas, for reading. This kernel has none of its own until the system's init
 * switches them on again, which is when all images have been written.
 */
export const swapStage = stage({
  name: 'swap',
  needs: { kernel: required<Kernel>() },
  run: ({ kernel }) => {
    kernel.stored = openSwapAreas(kernel);
  },
});

/** An area that is not read has its reason here: processes that have pages there are refused with it. */
function openSwapAreas(kernel: Kernel): SwapStore {
  const areas = new Map<number, OpenArea | string>();
  const attempt = <T>(part: () => T): T | string => {
    try {
      return part();
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return error.message;
    }
  };
  const count = attempt(() => swapAreaCount(kernel));
  const untried = untriedSwap(kernel.release);
  for (let type = 0; typeof count === 'number' && type < count; type++)
    areas.set(type, untried ?? attempt(() => openSwapArea(swapAreaAt(kernel, type))));
  return new SwapStore(areas);
}
