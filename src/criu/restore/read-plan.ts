import { join } from 'node:path';
import { RESTORE_PLAN, type RestorePlan, restorePlanSchema } from '../images/plan/restore-plan.ts';
import { readImageText } from './open-image.ts';

/** Reads the plan; throws if the directory has none or it is not one. */
export function readRestorePlan(directory: string): RestorePlan {
  return restorePlanSchema.parse(JSON.parse(readImageText(join(directory, RESTORE_PLAN))));
}
