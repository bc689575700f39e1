import type { Kernel } from '../../vmcore/kernel.ts';
import { readScopeLimits } from '../systemd/scope-limits.ts';
import { type ImagedGroup, imagedPids } from './images-stage.ts';
import { orElse, required, step } from './stage-list.ts';

/** The limits that the processes were under, for the scopes of their groups. */
export const limitsStep = step({
  name: 'limits',
  needs: { kernel: required<Kernel>(), imaged: orElse<readonly ImagedGroup[]>([]) },
  run: ({ kernel, imaged }, { report }) => {
    const { limits, unreadable } = readScopeLimits(kernel, imagedPids(imaged));
    report.notes.push(...unreadable);
    return { limits };
  },
});
