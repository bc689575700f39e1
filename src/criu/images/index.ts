export {
  applyCrashProcedures,
  type DeliveredPlan,
  deliveredPlans,
  type ProcedureOccasion,
  type ProcedurePlan,
} from './crash-procedure.ts';
export { type FilesToPrepare, writePreparation } from './files/preparation.ts';
export { ImageDirectory, ImageWriteError, type PageSource } from './image.ts';
export { type CriuVersion, parseCriuVersion, restoreProblems, wholeGroup } from './limits.ts';
export { describeGroupPlan, describeProcessPlan } from './plan/describe-plan.ts';
export { fileIdentity } from './plan/preparation.ts';
export { keepWithoutProcedures } from './procedure-fallback.ts';
export { type ImagesSize, imagesSize } from './size.ts';
export { writeWhole } from './whole-directory.ts';
export { type ImageSummary, writeImages } from './write-images.ts';
