export { readCrashNotes } from './crash-notes.ts';
export { type CrashSegment, planCrashImage } from './crash-plan.ts';
export { readEfiState } from './efi.ts';
export { KexecError } from './error.ts';
export type { ImagePlan } from './image-plan.ts';
export { KEXEC_ON_CRASH, type KexecImage, kexecLoad, kexecUnload } from './load.ts';
export { crashLoadRange, crashReservations } from './memory-map.ts';
export type { Segment } from './segments.ts';
