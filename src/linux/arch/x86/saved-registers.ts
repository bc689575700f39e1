import type { VectorState } from '../../../arch/index.ts';
import { USER_CS } from '../../../arch/x86-64/registers.ts';
import { VmcoreError } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import type { Task } from '../../sched.ts';
import { readXstate, standardOffsets } from './fpu.ts';
import { taskPtRegs } from './ptrace.ts';

/** With FRED the upper bits of the selector slots are used for other things. */
const SELECTOR = 0xffffn;

/** Registers that have no place in the dump's note of a CPU, or are not filled in there by everybody. */
export const REGISTERS_OF_THE_TASK = ['fs_base', 'gs_base', 'ds', 'es', 'fs', 'gs'] as const;

/**
 * General registers of a task by the names of `struct user_regs_struct`, as the kernel saved them when the
 * thread entered it. Throws a VmcoreError if it has none of 64-bit code.
 */
export function savedRegisters(kernel: Kernel, task: Task): Record<string, bigint> {
  const regs = taskPtRegs(kernel, task.stack);
  const { r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, flags, sp } = regs;
  const cs = regs.cs & SELECTOR;
  if (cs !== USER_CS) throw new VmcoreError('it has no user registers on its kernel stack');
  const { thread } = task;
  return {
    ...{ r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax },
    ...{ ip, cs, flags, sp, ss: regs.ss & SELECTOR },
    ...{ fs_base: thread.fsbase, gs_base: thread.gsbase },
    ...{ ds: BigInt(thread.ds), es: BigInt(thread.es) },
    ...{ fs: BigInt(thread.fsindex), gs: BigInt(thread.gsindex) },
  };
}

/**
 * Floating-point and vector registers of a task. Throws a VmcoreError if they cannot be read, or contradict
 * themselves.
 */
export function savedVectorState(kernel: Kernel, task: Task): VectorState {
  const { fxsave, xstateBv, components } = readXstate(kernel, task.thread.fpstate, task.thread.pkru);
  const offsets = components.length === 0 ? [] : standardOffsets(kernel);
  const placed = components.flatMap((component) => {
    const offset = offsets[component.number];
    return offset === undefined ? [] : [{ ...component, offset }];
  });
  return { fxsave, xstateBv, components: placed };
}
