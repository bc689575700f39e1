import type { Kernel } from '../../vmcore/kernel.ts';
import type { WriteBack } from '../write-back/index.ts';
import { bootLimitsStep } from './boot-limits-step.ts';
import { captureStage } from './capture-stage.ts';
import { filesStage } from './files-stage.ts';
import { handoverStage } from './handover-stage.ts';
import { imagesStage } from './images-stage.ts';
import { limitsStep } from './limits-step.ts';
import { logStage } from './log-stage.ts';
import { mountsStage, readOnlyStep } from './mounts-stage.ts';
import { proceduresStage, watchStep } from './procedures.ts';
import { restoreStage } from './restore-stage.ts';
import { sandboxesStage, unansweredStep } from './sandboxes-stage.ts';
import { selectionStage } from './selection-stage.ts';
import { StageList } from './stage-list.ts';
import { stageZeroStep } from './stage-zero-step.ts';
import { swapStage } from './swap-stage.ts';
import { closeStep, cpusStage, memoryStage } from './take-back.ts';
import { makeTmpfsStage, saveTmpfsStage } from './tmpfs-stages.ts';
import { writeBackStage } from './write-back-stage.ts';

/** What there is before the first stage. */
export interface DeadWorld {
  readonly kernel: Kernel;
  readonly writeBack: WriteBack;
}

/** From the dead kernel's memory to processes that run, in this order. */
export const RESURRECTION = new StageList<DeadWorld>()
  .next(stageZeroStep)
  .next(logStage)
  .next(mountsStage)
  .next(swapStage)
  .next(writeBackStage)
  .next(selectionStage)
  .next(captureStage)
  .next(imagesStage)
  .next(saveTmpfsStage)
  .next(limitsStep)
  .next(cpusStage)
  // From here on nothing can be read of the dead kernel.
  .next(closeStep)
  .next(memoryStage)
  .next(bootLimitsStep)
  .next(makeTmpfsStage)
  .next(filesStage)
  .next(readOnlyStep)
  .next(watchStep)
  .next(unansweredStep)
  .next(restoreStage)
  .next(proceduresStage)
  .next(sandboxesStage)
  .next(handoverStage);
