/**
 * What the kernel's headers of the architecture tell, for other parts. There is one architecture: a second
 * one makes each of these a choice by `kernel.architecture` (the list of what one takes is in
 * src/arch/architecture.ts).
 */

export { calledFunction, plainName } from './x86/call-site.ts';
export { apicIdOf, type HaltedCpu, haltedCpus } from './x86/halted-cpus.ts';
export { isOnStackOf, taskPtRegs, threadSize } from './x86/ptrace.ts';
export { REGISTERS_OF_THE_TASK, savedRegisters, savedVectorState } from './x86/saved-registers.ts';
export { interruptStack, placeOnCpu, taskStack } from './x86/task-stack.ts';
