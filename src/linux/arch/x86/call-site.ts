import { readable } from '../../../vmcore/errors.ts';
import type { Kernel } from '../../../vmcore/kernel.ts';

/** `call rel32` (Intel SDM, volume 2). */
const CALL = 0xe8;
const CALL_BYTES = 5;
/** Before each function there may be room for a prologue, which has a symbol of its own since 6.2. */
const PADDING = '__pfx_';
/** What a compiler makes of one function; a call to a part of a function is one to that function. */
const VARIANT = /\.(?:isra|constprop|part|cold|llvm)(?:\.\d+)*.*$/;

/**
 * The function that was called: its name; `indirect`, through a pointer; undefined if that cannot be told.
 */
export type CalledFunction = { readonly name: string } | 'indirect' | undefined;

const THUNKS_BYTES = 16n * 32n;

/** A function's name without what the compiler added to it. */
export function plainName(name: string): string {
  return name.replace(VARIANT, '');
}

/**
 * Which function of the kernel proper the call before a return address has entered. That function may have
 * gone on in another one (by a jump at its end), but it has not returned.
 */
export function calledFunction(kernel: Kernel, returnAddress: bigint): CalledFunction {
  const code = readable(() => kernel.memory.read(returnAddress - BigInt(CALL_BYTES), CALL_BYTES));
  if (code === undefined) return undefined;
  if (code[0] === CALL) {
    const symbol = kernel.symbolAt(returnAddress + BigInt(code.readInt32LE(1)));
    if (symbol?.name.startsWith(PADDING) === true)
      return { name: plainName(symbol.name.slice(PADDING.length)) };
    if (isThunk(kernel, returnAddress + BigInt(code.readInt32LE(1)))) return 'indirect';
    if (symbol?.offset === 0) return { name: plainName(symbol.name) };
  }
  return isIndirect(code) ? 'indirect' : undefined;
}

/**
 * Calls through a register go through these (retpolines, arch/x86/lib/retpoline.S), one for each register.
 * The first has the address of the array, and other names there.
 */
function isThunk(kernel: Kernel, target: bigint): boolean {
  const start = kernel.symbolMaybe('__x86_indirect_thunk_array');
  return start !== undefined && target >= start && target < start + THUNKS_BYTES;
}

/** `call *%reg` and `call *(memory)`: FF /2, with any prefix of a register's upper half. */
function isIndirect(code: Buffer): boolean {
  const has = (at: number, mode: number, except: number): boolean => {
    const modrm = code[at + 1] ?? 0;
    return code[at] === 0xff && (modrm & 0xf8) === mode && (modrm & 7) !== except;
  };
  return has(3, 0xd0, -1) || has(2, 0x50, 4);
}
