import type { XstateComponent } from '../../../arch/index.ts';
import { FXSAVE, XFEATURE } from '../../../arch/x86-64/xstate.ts';
import { ContainerError } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';
import { addressOf, struct, u32, u64 } from '../../../vmcore/view.ts';

/** `struct fpstate` (arch/x86/include/asm/fpu/types.h); 5.16 and later. */
export const fpstateStruct = struct('fpstate', {
  size: u32,
  user_size: u32,
  xfeatures: u64,
  user_xfeatures: u64,
  regs: addressOf('regs'),
});

/** The XSAVE header after the legacy region: XSTATE_BV, XCOMP_BV. */
const XSTATE_BV = 512;
const XCOMP_BV = 520;
const HEADER_BYTES = 64;
/** Bit 63 of XCOMP_BV: the compacted format. */
const COMPACTED = 1n << 63n;
/** Of xstate_flags: the component starts at a multiple of 64 in the compacted format. */
const ALIGNED64 = 2;
/** No XSAVE area is larger on any machine so far: AMX takes it to 11 KiB. */
const MAX_FPSTATE = 64 * 1024;
const ST_SPACE = 32;
const XMM_SPACE = 160;
const LEGACY_END = 416;

/** Extended state of a thread in the form that ptrace shows. */
export interface Xstate {
  /** The legacy region, with initial values where a component is not in use. */
  readonly fxsave: Buffer;
  /** Components that are not in their initial state. */
  readonly xstateBv: bigint;
  /** Components above the legacy region that user space may use, zeros where not in use. */
  readonly components: readonly XstateComponent[];
}

interface ComponentLayout {
  readonly sizes: readonly number[];
  readonly offsets: readonly number[];
  readonly flags: readonly number[];
}

/**
 * Sizes, standard offsets and flags that the kernel read from CPUID at boot; of components that the processor
 * lacks all ones.
 */
function componentLayout(kernel: Kernel): ComponentLayout {
  const count = 19;
  const table = (symbol: string): number[] => {
    const raw = kernel.memory.read(kernel.symbol(symbol), count * 4);
    return Array.from({ length: count }, (_, i) => raw.readUInt32LE(i * 4));
  };
  return { sizes: table('xstate_sizes'), offsets: table('xstate_offsets'), flags: table('xstate_flags') };
}

/** Where an XSAVE area of standard format has each component, by its number: bytes, as CPUID said at boot. */
export function standardOffsets(kernel: Kernel): readonly number[] {
  return componentLayout(kernel).offsets;
}

/**
 * Sizes of components that are the same on every processor (SDM volume 1, chapter 13); 0 where that is not
 * so.
 */
const ARCHITECTURAL_SIZES: readonly number[] = [0, 0, 256, 64, 64, 64, 512, 1024, 0, 8];

/**
 * Throws a ContainerError if the size of a component in use is impossible: all registers behind it would be
 * in the wrong place.
 */
function checkSizes(kernel: Kernel, { sizes }: ComponentLayout, inUse: bigint): void {
  for (const [number, size] of sizes.entries()) {
    if (number < 2 || !has(inUse, number)) continue;
    const expected = ARCHITECTURAL_SIZES[number] ?? 0;
    if (size === 0 || size > MAX_FPSTATE || (expected !== 0 && size !== expected)) {
      const address = kernel.symbol('xstate_sizes');
      throw new ContainerError('xstate_sizes', address, `has ${size} bytes for component ${number}`);
    }
  }
}

function has(mask: bigint, feature: number): boolean {
  return ((mask >> BigInt(feature)) & 1n) === 1n;
}

/**
 * Offset of a component in an area with this XCOMP_BV: `xfeature_get_offset()` of
 * arch/x86/kernel/fpu/xstate.c.
 */
function offsetOf(layout: ComponentLayout, xcompBv: bigint, feature: number): number {
  if ((xcompBv & COMPACTED) === 0n) return layout.offsets[feature] ?? 0;
  let offset = FXSAVE.bytes + HEADER_BYTES;
  for (let i = 2; i < layout.sizes.length; i++) {
    if (!has(xcompBv, i)) continue;
    if (((layout.flags[i] ?? 0) & ALIGNED64) !== 0) offset = Math.ceil(offset / 64) * 64;
    if (i === feature) return offset;
    offset += layout.sizes[i] ?? 0;
  }
  return offset;
}

/** The legacy region as ptrace shows it: parts that are not in use hold what the CPU starts with. */
function legacyRegion(area: Buffer, inUse: bigint): Buffer {
  const legacy = Buffer.alloc(FXSAVE.bytes);
  legacy.writeUInt16LE(FXSAVE.initialFcw, FXSAVE.fcw);
  legacy.writeUInt32LE(FXSAVE.initialMxcsr, FXSAVE.mxcsr);
  if (has(inUse, XFEATURE.fp)) {
    area.copy(legacy, 0, 0, FXSAVE.mxcsr);
    area.copy(legacy, ST_SPACE, ST_SPACE, XMM_SPACE);
  }
  if (has(inUse, XFEATURE.sse) || has(inUse, XFEATURE.ymm))
    area.copy(legacy, FXSAVE.mxcsr, FXSAVE.mxcsr, FXSAVE.mxcsrMask);
  legacy.writeUInt32LE(area.readUInt32LE(FXSAVE.mxcsrMask), FXSAVE.mxcsrMask);
  if (has(inUse, XFEATURE.sse)) area.copy(legacy, XMM_SPACE, XMM_SPACE, LEGACY_END);
  return legacy;
}

/**
 * Floating-point and vector registers that the kernel saved for a task. `fpstate` is `thread.fpu.fpstate`,
 * `pkru` is `thread.pkru`, which is newer than the copy in the area. The kernel keeps the compacted format
 * where the CPU has XSAVES; the result is independent of it. Throws a ContainerError if the area contradicts
 * itself.
 */
export function readXstate(kernel: Kernel, fpstate: bigint, pkru: number): Xstate {
  const state = kernel.bind(fpstateStruct).at(fpstate);
  if (state.size < FXSAVE.bytes || state.size > MAX_FPSTATE) {
    throw new ContainerError('fpstate', fpstate, `has a size of ${state.size} bytes`);
  }
  const area = kernel.memory.read(state.regs, state.size);
  if (state.size < FXSAVE.bytes + HEADER_BYTES) {
    return { fxsave: area.subarray(0, FXSAVE.bytes), xstateBv: 3n, components: [] };
  }
  const xcompBv = area.readBigUInt64LE(XCOMP_BV);
  const xstateBv = area.readBigUInt64LE(XSTATE_BV);
  if ((xstateBv & ~state.xfeatures) !== 0n) {
    throw new ContainerError(
      'fpstate',
      fpstate,
      `uses components ${xstateBv.toString(16)} that it does not have`,
    );
  }
  return xstateOf(kernel, area, { xstateBv, xcompBv, userFeatures: state.user_xfeatures, pkru, fpstate });
}

/**
 * The same of an area that XSAVE has written, in the standard format, from the registers of a processor: what
 * a thread had whose `fpstate` this is. Throws a ContainerError if the area contradicts itself.
 */
export function readLiveXstate(kernel: Kernel, area: Buffer, fpstate: bigint): Xstate {
  const state = kernel.bind(fpstateStruct).at(fpstate);
  if (area.length < FXSAVE.bytes + HEADER_BYTES) {
    throw new ContainerError('XSAVE area', fpstate, `has a size of ${area.length} bytes`);
  }
  const xstateBv = area.readBigUInt64LE(XSTATE_BV);
  const pkru = livePkru(kernel, area);
  return xstateOf(kernel, area, { xstateBv, xcompBv: 0n, userFeatures: state.user_xfeatures, pkru, fpstate });
}

/** PKRU in an area that XSAVE has written: the user's rights to protection keys; 0 where there are none. */
export function livePkru(kernel: Kernel, area: Buffer): number {
  if (!has(area.readBigUInt64LE(XSTATE_BV), XFEATURE.pkru)) return 0;
  const offset = componentLayout(kernel).offsets[XFEATURE.pkru] ?? area.length;
  if (offset + 4 > area.length) throw new ContainerError('XSAVE area', 0n, 'has PKRU beyond its end');
  return area.readUInt32LE(offset);
}

/** What an area says of itself, and what its thread may use. */
interface AreaFacts {
  readonly xstateBv: bigint;
  readonly xcompBv: bigint;
  readonly userFeatures: bigint;
  readonly pkru: number;
  /** For messages. */
  readonly fpstate: bigint;
}

function xstateOf(kernel: Kernel, area: Buffer, facts: AreaFacts): Xstate {
  const { xstateBv, xcompBv, userFeatures, pkru, fpstate } = facts;
  const layout = componentLayout(kernel);
  checkSizes(kernel, layout, BigInt.asUintN(63, xcompBv) | userFeatures);
  const components: XstateComponent[] = [];
  for (let number = 2; number < layout.sizes.length; number++) {
    if (!has(userFeatures, number)) continue;
    const data = Buffer.alloc(layout.sizes[number] ?? 0);
    if (number === XFEATURE.pkru) data.writeUInt32LE(pkru, 0);
    else if (has(xstateBv, number)) {
      const from = offsetOf(layout, xcompBv, number);
      if (from + data.length > area.length) {
        throw new ContainerError('fpstate', fpstate, `has component ${number} beyond its end`);
      }
      area.copy(data, 0, from, from + data.length);
    }
    components.push({ number, data });
  }
  // The area's bit is as old as its copy: without it the rights would be those of a thread without keys.
  const keys = pkru === 0 ? 0n : 1n << BigInt(XFEATURE.pkru);
  const inUse = ((xstateBv & ~(1n << BigInt(XFEATURE.pkru))) | keys) & userFeatures;
  return { fxsave: legacyRegion(area, xstateBv), xstateBv: inUse, components };
}

/**
 * Whether a CPU uses vector registers for the kernel's own work, or is about to (kernel_fpu_begin); where the
 * kernel does not show it, it may be.
 */
export function isInKernelFpu(kernel: Kernel, cpu: number): boolean {
  const variable = kernel.symbolMaybe('in_kernel_fpu');
  return variable === undefined || kernel.memory.u8(kernel.perCpu(variable, cpu)) !== 0;
}

/** Address of the `struct fpu` whose registers a CPU has, or had last. */
export function fpregsOwner(kernel: Kernel, cpu: number): bigint {
  return kernel.memory.pointer(kernel.perCpu('fpu_fpregs_owner_ctx', cpu));
}
