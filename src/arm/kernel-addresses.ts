import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf } from '../system/thrown.ts';
import { Kcore } from '../vmcore/kcore.ts';
import type { IomemEntry } from './iomem.ts';

/** Where the running kernel has what lies at physical addresses; what is not certain is left out. */
export interface KernelAddresses {
  /** Of `_text`. */
  readonly textVirtual?: bigint;
  /** page_offset_base: where the direct map begins. */
  readonly directMap?: bigint;
}

/**
 * Where a symbol is, by the text of /proc/kallsyms; undefined if it is not there or its address is hidden.
 */
export function symbolAddress(kallsyms: string, name: string): bigint | undefined {
  const found = new RegExp(`^([0-9a-f]+) \\w ${name}$`, 'm').exec(kallsyms)?.[1];
  return found === undefined || /^0+$/.test(found) ? undefined : BigInt(`0x${found}`);
}

/** The virtual addresses that a core header of the running kernel has. */
export function kernelAddresses(resources: readonly IomemEntry[], root = '/'): KernelAddresses {
  const textVirtual = symbolAddress(readFileSync(join(root, 'proc/kallsyms'), 'latin1'), '_text');
  const isTextKnown = resources.some(({ name }) => name === 'Kernel code');
  const directMap = readDirectMap(join(root, 'proc/kcore'));
  return {
    ...(textVirtual === undefined || !isTextKnown ? {} : { textVirtual }),
    ...(directMap === undefined ? {} : { directMap }),
  };
}

function readDirectMap(path: string): bigint | undefined {
  try {
    using memory = new Kcore(path);
    return memory.directMap;
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return undefined;
  }
}
