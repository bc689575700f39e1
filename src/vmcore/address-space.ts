import { VmcoreError } from './errors.ts';
import { type AddressSpace, KERNEL_TEXT_MAP, type KernelMemory, type LinearRange } from './memory.ts';
import type { PhysicalMemory } from './physical.ts';
import { vmcoreinfoNumber, vmcoreinfoSymbol } from './vmcoreinfo.ts';

/** KERNEL_IMAGE_SIZE of kernels that do not say (before 4.7): 512 MiB. */
const DEFAULT_IMAGE_BYTES = 512 << 20;
/** Where the direct map is without CONFIG_RANDOMIZE_MEMORY (Documentation/arch/x86/x86_64/mm.rst). */
const DIRECT_MAP_4_LEVELS = 0xffff_8880_0000_0000n;
const DIRECT_MAP_5_LEVELS = 0xff11_0000_0000_0000n;
const VMEMMAP_4_LEVELS = 0xffff_ea00_0000_0000n;
const VMEMMAP_5_LEVELS = 0xffd4_0000_0000_0000n;
/** `init_uts_ns.name` is a struct new_utsname: arrays of 65 bytes; release is the third. */
const UTS_RELEASE = 130;
const UTS_LENGTH = 65;

/**
 * The first translation, from VMCOREINFO alone: kernel image at `phys_base`, page tables at `swapper_pg_dir`. Throws a
 * VmcoreError if VMCOREINFO lacks what it takes, or if memory is encrypted.
 */
export function initialAddressSpace(info: ReadonlyMap<string, string>): AddressSpace {
  const physBase = vmcoreinfoNumber(info, 'NUMBER(phys_base)');
  const pgd = vmcoreinfoSymbol(info, 'swapper_pg_dir') ?? vmcoreinfoSymbol(info, 'init_top_pgt');
  if (physBase === undefined || pgd === undefined) {
    throw new VmcoreError(
      'VMCOREINFO has no phys_base or no swapper_pg_dir: not an x86-64 kernel of 4.10 or later',
    );
  }
  if ((vmcoreinfoNumber(info, 'NUMBER(sme_mask)') ?? 0) !== 0) {
    throw new VmcoreError('the machine encrypts its memory (SME): such dumps are not read');
  }
  const imageBytes = vmcoreinfoNumber(info, 'NUMBER(KERNEL_IMAGE_SIZE)') ?? DEFAULT_IMAGE_BYTES;
  const image: LinearRange = {
    start: KERNEL_TEXT_MAP,
    end: KERNEL_TEXT_MAP + BigInt(imageBytes),
    physical: physBase,
  };
  const levels = vmcoreinfoNumber(info, 'NUMBER(pgtable_l5_enabled)') === 1 ? 5 : 4;
  return { table: { root: Number(pgd - KERNEL_TEXT_MAP) + physBase, levels }, linear: [image] };
}

/** Checks that the kernel image is where VMCOREINFO puts it: `init_uts_ns` must say the release of VMCOREINFO. */
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

/** What the kernel chose at boot (CONFIG_RANDOMIZE_MEMORY). */
export interface Bases {
  readonly directMap: bigint;
  readonly vmemmap: bigint;
}

/** Reads the bases from the kernel's own variables, or takes the fixed ones where it has none. */
export function readBases(memory: KernelMemory, symbol: (name: string) => bigint | undefined): Bases {
  const fiveLevels = memory.addressSpace.table.levels === 5;
  const read = (name: string, fixed: bigint): bigint => {
    const address = symbol(name);
    return address === undefined ? fixed : memory.u64(address);
  };
  const directMap = read('page_offset_base', fiveLevels ? DIRECT_MAP_5_LEVELS : DIRECT_MAP_4_LEVELS);
  const vmemmap = read('vmemmap_base', fiveLevels ? VMEMMAP_5_LEVELS : VMEMMAP_4_LEVELS);
  // Both are aligned to 1 GiB (arch/x86/mm/kaslr.c) and lie in the kernel's half.
  for (const [name, base] of [
    ['page_offset_base', directMap],
    ['vmemmap_base', vmemmap],
  ] as const) {
    if (base % 0x4000_0000n !== 0n || base < 0xff00_0000_0000_0000n) {
      throw new VmcoreError(`the dump is damaged: ${name} holds 0x${base.toString(16)}`);
    }
  }
  return { directMap, vmemmap };
}

/** The whole translation: the image as far as it goes, and the direct map over all memory of the dump. */
export function fullAddressSpace(
  initial: AddressSpace,
  physical: PhysicalMemory,
  bases: Bases,
  imageEnd: bigint | undefined,
): AddressSpace {
  const last = physical.ranges.at(-1);
  const bytes = last === undefined ? 0 : last.physical + last.length;
  const directMap: LinearRange = {
    start: bases.directMap,
    end: bases.directMap + BigInt(bytes),
    physical: 0,
  };
  const image = initial.linear.map((range) => ({ ...range, end: imageEnd ?? range.end }));
  return { table: initial.table, linear: [directMap, ...image] };
}
