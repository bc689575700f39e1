import type { Note, VectorState } from '../architecture.ts';
import { FXSAVE } from './xstate.ts';

/** Types of notes (include/uapi/linux/elf.h). */
const NT_FPREGSET = 2;
const NT_X86_XSTATE = 0x202;

/** Bytes of the legacy region and of the header behind it: SDM volume 1, 13.4. */
const LEGACY = FXSAVE.bytes;
const HEADER = 64;
/**
 * In the part of the legacy region that is left to software: which components there are
 * (`xstate_fx_sw_bytes`).
 */
const XCR0 = 464;
/** x87 and SSE, which lie in the legacy region. */
const LEGACY_COMPONENTS = 3n;

/**
 * An XSAVE area of standard format, which is what ptrace(2) and core files have whatever the kernel keeps.
 */
function standardArea({ fxsave, xstateBv, components }: VectorState): Buffer {
  const end = components.reduce(
    (most, { offset, data }) => Math.max(most, offset + data.length),
    LEGACY + HEADER,
  );
  const area = Buffer.alloc(end);
  area.set(fxsave.subarray(0, LEGACY));
  const there = components.reduce((mask, { number }) => mask | (1n << BigInt(number)), LEGACY_COMPONENTS);
  area.writeBigUInt64LE(there, XCR0);
  area.writeBigUInt64LE(xstateBv, LEGACY);
  for (const { offset, data } of components) area.set(data, offset);
  return area;
}

/** NT_FPREGSET and, from processors with more than SSE, NT_X86_XSTATE. */
export function vectorNotes(state: VectorState): Note[] {
  const legacy = { name: 'CORE', type: NT_FPREGSET, description: state.fxsave.subarray(0, LEGACY) };
  if (state.components.length === 0) return [legacy];
  return [legacy, { name: 'LINUX', type: NT_X86_XSTATE, description: standardArea(state) }];
}
