import type { Kernel } from '../vmcore/kernel.ts';
import type { ImagedGroup } from './images-stage.ts';
import { makeMemoryFiles, type SavedMemoryFiles, saveMemoryFiles } from './memory-files.ts';
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
    return { memoryFiles: saveMemoryFiles(kernel, groups, directory, manifest.config.tmpfs, report) };
  },
});

export const makeTmpfsStage = stage({
  name: 'make-tmpfs',
  needs: { memoryFiles: required<SavedMemoryFiles>(), imaged: orElse<readonly ImagedGroup[]>([]) },
  run: ({ memoryFiles, imaged }, { manifest, report }) =>
    makeMemoryFiles(memoryFiles, spareBytes(imaged), manifest.config.images.keep, report),
});
