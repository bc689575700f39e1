import { pointer, struct } from '../../../vmcore/view.ts';

/** `struct tlb_state`, of each CPU (arch/x86/include/asm/tlbflush.h). */
export const tlbStateStruct = struct('tlb_state', { loaded_mm: pointer });
