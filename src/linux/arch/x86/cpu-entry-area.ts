import { addressOf, struct } from '../../../vmcore/view.ts';

/**
 * `struct cea_exception_stacks`: the stacks of a CPU for what may come at any time
 * (arch/x86/include/asm/cpu_entry_area.h).
 */
export const ceaExceptionStacksStruct = struct('cea_exception_stacks', { nmi: addressOf('NMI_stack') });
