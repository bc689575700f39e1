import type { SignalContext, SignalFrame, SignalFrameFormat } from '../architecture.ts';
import type { UserRegisters } from './user-registers.ts';
import { FXSAVE } from './xstate.ts';

/**
 * Offsets in `struct rt_sigframe` of x86-64 (arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h), which
 * is what rt_sigreturn(2) takes a thread's context from.
 */
const offset = {
  returnAddress: 0,
  ucFlags: 8,
  altStackSp: 24,
  altStackFlags: 32,
  altStackSize: 40,
  generalRegisters: 48,
  segments: 192,
  fpstate: 232,
  sigmask: 304,
} as const;

/** Sizes in bytes: of the frame without the vector state, and of the return address at its start. */
const frameBytes = { whole: 440, returnAddress: 8 } as const;

/** UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS. */
const ucFlags = 7n;

/** `struct sigcontext_64`: the order of its 64-bit registers. */
const registerOrder = [
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'di',
  'si',
  'bp',
  'bx',
  'dx',
  'ax',
  'cx',
  'sp',
  'ip',
  'flags',
] as const satisfies readonly (keyof UserRegisters)[];

const xstateHeaderBytes = 64;
/** `struct _fpx_sw_bytes`, in the part of the legacy region that the processor leaves to software. */
const softwareBytes = { magic1: 464, extendedSize: 468, features: 472, stateSize: 480 } as const;
const FP_XSTATE_MAGIC1 = 0x46505853;
const FP_XSTATE_MAGIC2 = 0x46505845;
const x87AndSse = 3n;

/** Builds the frame, vector state included. */
function build(
  thread: SignalContext,
  top: number,
  restorer: number,
  xstateOffsets: readonly number[],
): SignalFrame {
  const fpu = buildXsaveArea(thread, xstateOffsets);
  const fpuAddress = floorTo(top - fpu.length, 64);
  // As at any function entry: 16-byte aligned before the return address was pushed.
  const address = floorTo(fpuAddress - frameBytes.whole, 16) - frameBytes.returnAddress;
  const bytes = Buffer.alloc(fpuAddress + fpu.length - address);
  bytes.writeBigUInt64LE(BigInt(restorer), offset.returnAddress);
  bytes.writeBigUInt64LE(ucFlags, offset.ucFlags);
  bytes.writeBigUInt64LE(thread.altStack.sp, offset.altStackSp);
  bytes.writeInt32LE(thread.altStack.flags, offset.altStackFlags);
  bytes.writeBigUInt64LE(thread.altStack.sizeBytes, offset.altStackSize);
  for (const [index, name] of registerOrder.entries()) {
    bytes.writeBigUInt64LE(thread.registers[name], offset.generalRegisters + 8 * index);
  }
  const { cs, gs, fs, ss } = thread.registers;
  for (const [index, selector] of [cs, gs, fs, ss].entries()) {
    bytes.writeUInt16LE(Number(selector), offset.segments + 2 * index);
  }
  bytes.writeBigUInt64LE(BigInt(fpuAddress), offset.fpstate);
  bytes.writeBigUInt64LE(thread.blockedSignals, offset.sigmask);
  bytes.set(fpu, fpuAddress - address);
  return { address, bytes };
}

/**
 * The thread's extended state in the standard format of XSAVE, with the marks by which the kernel knows its
 * size (arch/x86/kernel/fpu/signal.c). Without XSAVE the legacy region alone.
 */
function buildXsaveArea(thread: SignalContext, xstateOffsets: readonly number[]): Uint8Array {
  const { fxsave, xstateBv, components } = thread.fpu;
  const ends = components.map(({ number, data }) => componentOffset(number, xstateOffsets) + data.length);
  const stateBytes = Math.max(FXSAVE.bytes + xstateHeaderBytes, ...ends);
  const area = Buffer.alloc(stateBytes + 4);
  area.set(fxsave.subarray(0, softwareBytes.magic1));
  if (xstateBv === undefined) return area.subarray(0, FXSAVE.bytes);
  // XRSTOR faults on a bit that user space may not have, such as that of a supervisor component.
  const features = components.reduce((bits, { number }) => bits | (1n << BigInt(number)), x87AndSse);
  area.writeUInt32LE(FP_XSTATE_MAGIC1, softwareBytes.magic1);
  area.writeUInt32LE(stateBytes + 4, softwareBytes.extendedSize);
  area.writeBigUInt64LE(features, softwareBytes.features);
  area.writeUInt32LE(stateBytes, softwareBytes.stateSize);
  area.writeBigUInt64LE(xstateBv & features, FXSAVE.bytes);
  for (const { number, data } of components) {
    area.set(data, componentOffset(number, xstateOffsets));
  }
  area.writeUInt32LE(FP_XSTATE_MAGIC2, stateBytes);
  return area;
}

function componentOffset(number: number, xstateOffsets: readonly number[]): number {
  const found = xstateOffsets[number];
  if (found === undefined)
    throw new RangeError(`XSAVE component ${number} has no offset in the standard format`);
  return found;
}

function floorTo(value: number, multiple: number): number {
  return value - (value % multiple);
}

/** endbr64, where indirect branches are tracked. */
const ENDBR = [0xf3, 0x0f, 0x1e, 0xfa];
const SYSCALL = [0x0f, 0x05];
/** mov $15, %rax and mov $15, %eax: the number of rt_sigreturn. */
const MOVES = [
  [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0],
  [0xb8, 0x0f, 0, 0, 0],
];

const restorers = [ENDBR, []]
  .flatMap((mark) => MOVES.map((move) => [...mark, ...move]))
  .map((before) => ({ code: Uint8Array.from([...before, ...SYSCALL]), systemCall: before.length }))
  .toSorted((a, b) => b.code.length - a.code.length);

/** What a handler's return takes: `struct rt_sigframe`, with the vector state behind it. */
export const signalFrame: SignalFrameFormat = {
  returnAddressBytes: frameBytes.returnAddress,
  restorers,
  build,
};
