import type { Kernel } from '../../vmcore/kernel.ts';
import { makeTmpfs, type SavedTmpfs, saveTmpfs } from '../mounts/saved-tmpfs.ts';
import type { ImagedGroup } from './images-stage.ts';
import { spareBytes } from './restore-stage.ts';
import { orElse, required, stage } from './stage-list.ts';
import { imagesDirectory } from './work.ts';

/** Without groups, because an earlier stage failed, the files on tmpfs are saved all the same. */
export const saveTmpfsStage = stage({
  name: 'save-tmpfs',
  needs: { kernel: required<Kernel>(), imaged: orElse<readonly ImagedGroup[]>([]) },
  run: ({ kernel, imaged }, { manifest, place, report }) => {
    const groups = imaged.map(({ group }) => group);
    const directory = imagesDirectory({ manifest, place });
    return { savedTmpfs: saveTmpfs(kernel, groups, directory, manifest.config.tmpfs, report) };
  },
});

export const makeTmpfsStage = stage({
  name: 'make-tmpfs',
  needs: { savedTmpfs: required<SavedTmpfs>(), imaged: orElse<readonly ImagedGroup[]>([]) },
  run: ({ savedTmpfs, imaged }, { manifest, report }) =>
    makeTmpfs(savedTmpfs, spareBytes(imaged), manifest.config.images.keep, report),
});
