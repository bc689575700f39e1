import { EM_X86_64 } from '../../system/elf.ts';
import type { Architecture } from '../architecture.ts';
import { kernelSpace } from './kernel-space.ts';
import { pageTable } from './page-table.ts';
import { programStart } from './program-start.ts';
import { notes, ptraceRegisters } from './registers.ts';
import { signalFrame } from './signal-frame.ts';
import { systemCalls } from './system-calls.ts';

/** Linux on 64-bit processors of Intel and AMD. */
export const x86_64: Architecture = {
  name: 'x86-64',
  unameMachine: 'x86_64',
  elfMachine: EM_X86_64,
  pageTable,
  kernelSpace,
  notes,
  systemCalls,
  ptraceRegisters,
  signalFrame,
  programStart,
  stack: { redZoneBytes: 128, pointer: ({ sp }) => sp },
};
