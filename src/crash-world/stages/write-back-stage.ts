import { unwrittenFiles } from '../../capture/files/content/write-back.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { WriteBack } from '../write-back/index.ts';
import { required, stage } from './stage-list.ts';

/**
 * Writes to the disks what the dead kernel had promised to: without it files would be older than the
 * processes that use them.
 */
export const writeBackStage = stage({
  name: 'write-back',
  needs: { kernel: required<Kernel>(), writeBack: required<WriteBack>() },
  run: ({ kernel, writeBack }, { report }) => {
    const problems: string[] = [];
    const note = (sentence: string) => report.notes.push(sentence);
    try {
      writeBack.write(unwrittenFiles(kernel, problems), note);
    } finally {
      problems.forEach(note);
    }
  },
});
