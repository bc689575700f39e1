export type { Preparation } from '../images/plan/preparation.ts';
export { copyChunks } from './copy-chunks.ts';
export { abandonRecord, forceContinue } from './force-continue.ts';
export { openImage, readImageText } from './open-image.ts';
export { dropProcedures } from './procedure-fallback.ts';
export { type ProcedureOutcome, ProcedureWatch } from './procedure-watch.ts';
export { readRestorePlan } from './read-plan.ts';
export { contentPath, readPreparation } from './read-preparation.ts';
export { removeLeft } from './resources.ts';
export {
  type HeldGroup,
  holdImages,
  type Restored,
  type RestoreFailure,
  type RestoreOptions,
  type RestoreResult,
  type RestoreSeconds,
  restoreImages,
} from './restore.ts';
export { killAllOf, moveTo } from './restore-cgroup.ts';
export type { Inside } from './run-criu.ts';
export { PinnedImages, writeBackProblems } from './write-back.ts';
