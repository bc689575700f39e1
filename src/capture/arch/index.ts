/** What of a capture is the architecture's, for the other modules; there is one architecture. */
export { setsBase } from './base-instructions.ts';
export { type RegistersAtEnd, registersAtEnd } from './interrupted.ts';
export { LiveCpus, stageZeroResult } from './live-registers.ts';
export { type CapturedRegisters, captureRegisters, type OnCpu, registersAtEntry } from './x86-64.ts';
