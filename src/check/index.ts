export { checkInBrief, roomInBrief } from './brief.ts';
export { checkProcesses } from './check.ts';
export type { Conclusion, Outcome } from './conclude.ts';
export { type Machine, machineOnce, thisMachine } from './machine.ts';
export { causesOf, imagesBytes, isBack, printCheck } from './print.ts';
export {
  allTargets,
  NothingToCheckError,
  pidTargets,
  protectedTargets,
  type Targets,
  unitTargets,
} from './targets.ts';
export { type Checked, checkThisMachine } from './this-machine.ts';
