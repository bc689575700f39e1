import type { Architecture, BaseAddress, KernelAddressSpace, LinearRange } from '../arch/index.ts';
import { VmcoreError } from './errors.ts';
import type { KernelMemory } from './memory.ts';
import type { PhysicalMemory } from './physical.ts';
import { vmcoreinfoNumber, vmcoreinfoSymbol } from './vmcoreinfo.ts';

/** `init_uts_ns.name` is a struct new_utsname: arrays of 65 bytes; release is the third. */
const UTS_RELEASE = 130;
const UTS_LENGTH = 65;

/**
 * The first translation, from VMCOREINFO alone: the kernel image, and page tables. Throws a VmcoreError if
 * VMCOREINFO lacks what it takes, or if memory is encrypted.
 */
export function initialAddressSpace(
  architecture: Architecture,
  info: ReadonlyMap<string, string>,
): KernelAddressSpace {
  const space = architecture.kernelSpace.initial({
    number: (name) => vmcoreinfoNumber(info, `NUMBER(${name})`),
    symbol: (name) => vmcoreinfoSymbol(info, name),
  });
  if (typeof space === 'string') throw new VmcoreError(space);
  return space;
}

/**
 * Checks that the kernel image is where VMCOREINFO puts it: `init_uts_ns` must say the release of VMCOREINFO.
 */
export function imageMatches(memory: KernelMemory, info: ReadonlyMap<string, string>): boolean {
  const uts = vmcoreinfoSymbol(info, 'init_uts_ns');
  const name = vmcoreinfoNumber(info, 'OFFSET(uts_namespace.name)');
  const release = info.get('OSRELEASE');
  if (uts === undefined || name === undefined || release === undefined) return false;
  try {
    return memory.cstring(uts + BigInt(name + UTS_RELEASE), UTS_LENGTH) === release;
  } catch (error) {
    if (error instanceof VmcoreError) return false;
    throw error;
  }
}

/** What the kernel chose at boot (CONFIG_RANDOMIZE_MEMORY on x86). */
export interface Bases {
  readonly directMap: bigint;
  readonly vmemmap: bigint;
}

/**
 * Reads the bases from the kernel's own variables, or takes the fixed ones where it has none. Throws a
 * VmcoreError if they cannot be true.
 */
export function readBases(
  { kernelSpace }: Architecture,
  memory: KernelMemory,
  symbol: (name: string) => bigint | undefined,
): Bases {
  const { directMap, vmemmap } = kernelSpace.bases(memory.addressSpace.table.levels);
  const read = ({ variable, fixed }: BaseAddress): bigint => {
    const address = symbol(variable);
    const base = address === undefined ? fixed : memory.u64(address);
    if (base % kernelSpace.baseAlignment !== 0n || base < kernelSpace.start)
      throw new VmcoreError(`the dump is damaged: ${variable} holds 0x${base.toString(16)}`);
    return base;
  };
  return { directMap: read(directMap), vmemmap: read(vmemmap) };
}

/** The whole translation: the image as far as it goes, and the direct map over all memory of the dump. */
export function fullAddressSpace(
  initial: KernelAddressSpace,
  physical: PhysicalMemory,
  bases: Bases,
  imageEnd: bigint | undefined,
): KernelAddressSpace {
  const last = physical.ranges.at(-1);
  const bytes = last === undefined ? 0 : last.physical + last.length;
  const directMap: LinearRange = {
    start: bases.directMap,
    end: bases.directMap + BigInt(bytes),
    physical: 0,
  };
  const image = initial.linear.map((range) => ({ ...range, end: imageEnd ?? range.end }));
  return { ...initial, linear: [directMap, ...image] };
}
