import type { Kernel } from '../../vmcore/kernel.ts';
import { mountOldTmpfs, protectOldTmpfs, type TmpfsMount } from '../mounts/mounts.ts';
import { orElse, required, stage, step } from './stage-list.ts';

export const mountsStage = stage({
  name: 'mounts',
  needs: { kernel: required<Kernel>() },
  run: ({ kernel }, { report }) => {
    const { mounts, problems } = mountOldTmpfs(kernel);
    report.notes.push(...problems);
    return { mounts };
  },
});

/** When the files of the groups are made. */
export const readOnlyStep = step({
  name: 'read-only',
  needs: { mounts: orElse<readonly TmpfsMount[]>([]) },
  run: ({ mounts }, { report }) => {
    report.notes.push(...protectOldTmpfs(mounts));
  },
});
