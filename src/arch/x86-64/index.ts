import type { Architecture } from '../architecture.ts';
import { kernelSpace } from './kernel-space.ts';
import { pageTable } from './page-table.ts';
import { notes } from './registers.ts';

/** Linux on 64-bit processors of Intel and AMD. */
export const x86_64: Architecture = {
  name: 'x86-64',
  unameMachine: 'x86_64',
  elfMachine: 62,
  pageTable,
  kernelSpace,
  notes,
};
