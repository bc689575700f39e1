export { type BzImage, parseBzImage } from './bzimage.ts';
export { type CrashImageContent, type CrashSegment, planCrashImage } from './crash-image.ts';
export { readCrashNotes } from './crash-notes.ts';
export { type EfiState, readEfiState } from './efi.ts';
export type { ExtraLoad, PhysicalArea } from './elf-core-header.ts';
export { KexecError } from './error.ts';
export {
  type ImageContent,
  type ImagePlan,
  type PlacedImage,
  planImage,
  type SegmentRequest,
} from './image-plan.ts';
export { KEXEC_ON_CRASH, type KexecImage, kexecLoad, kexecUnload } from './load.ts';
export {
  crashLoadRange,
  crashReservations,
  type MemoryMapEntry,
  memoryMapOf,
  type Resource,
} from './memory-map.ts';
export type { Segment } from './segments.ts';
