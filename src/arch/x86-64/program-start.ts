import type { ProgramStart } from '../architecture.ts';
import { INITIAL_FLAGS, USER_CS, USER_DS } from './registers.ts';
import type { FpuState, UserRegisters } from './user-registers.ts';
import { initialFxsave, XFEATURE } from './xstate.ts';

/** xor edi, edi; mov eax, 231 (exit_group); syscall; ud2 */
const EXIT = Uint8Array.from([0x31, 0xff, 0xb8, 0xe7, 0x00, 0x00, 0x00, 0x0f, 0x05, 0x0f, 0x0b]);
/** Number of exit_group(2). */
const EXIT_GROUP = 231n;
/** MXCSR has no bit that a processor with SSE does not have. */
const ALL_OF_MXCSR = 0xffff;
const X87_AND_SSE = 3n;
const NO_CALL = 0xffff_ffff_ffff_ffffn;

const cleared = {
  ...{ r15: 0n, r14: 0n, r13: 0n, r12: 0n, bp: 0n, bx: 0n, r11: 0n, r10: 0n, r9: 0n, r8: 0n },
  ...{ ax: 0n, cx: 0n, dx: 0n, si: 0n, di: 0n, origAx: NO_CALL, flags: INITIAL_FLAGS },
};

function start(ip: number, sp: number): { registers: UserRegisters; fpu: FpuState } {
  const registers = {
    ...cleared,
    ...{ ip: BigInt(ip), cs: USER_CS, sp: BigInt(sp), ss: USER_DS },
    ...{ fsBase: 0n, gsBase: 0n, ds: 0n, es: 0n, fs: 0n, gs: 0n },
  };
  return { registers, fpu: { fxsave: initialFxsave(ALL_OF_MXCSR), xstateBv: undefined, components: [] } };
}

/**
 * Floating point as at the start of a program; memory protection keys are not a register of computation and
 * stay.
 */
function initialFpu(fpu: FpuState): FpuState {
  const components = fpu.components.filter(({ number }) => number === XFEATURE.pkru);
  const inUse = components.length > 0 ? X87_AND_SSE | (1n << BigInt(XFEATURE.pkru)) : X87_AND_SSE;
  return {
    fxsave: initialFxsave(0),
    components,
    xstateBv: fpu.xstateBv === undefined ? undefined : inUse,
  };
}

/** How programs and functions of 64-bit code start: System V ABI, x86-64. */
export const programStart: ProgramStart = {
  exit: EXIT,
  start,
  call({ registers, fpu }, entry, argument, sp) {
    const { cs, ss, fsBase, gsBase, ds, es, fs, gs } = registers;
    return {
      registers: {
        ...{ ...cleared, di: argument, ip: BigInt(entry), sp: BigInt(sp) },
        ...{ cs, ss, fsBase, gsBase, ds, es, fs, gs },
      },
      fpu: initialFpu(fpu),
    };
  },
  end({ registers: { fsBase, gsBase }, fpu }, ip, status) {
    const call = { ax: EXIT_GROUP, di: BigInt(status) };
    const selectors = { ds: 0n, es: 0n, fs: 0n, gs: 0n };
    return {
      registers: {
        ...{ ...cleared, ...call, ip: BigInt(ip), sp: 0n },
        ...{ cs: USER_CS, ss: USER_DS, fsBase, gsBase, ...selectors },
      },
      fpu: initialFpu(fpu),
    };
  },
  isNative: ({ cs }) => cs === USER_CS,
  keyRights({ components }) {
    const data = components.find(({ number }) => number === XFEATURE.pkru)?.data;
    return data === undefined ? 0 : Buffer.from(data).readUInt32LE(0);
  },
};
