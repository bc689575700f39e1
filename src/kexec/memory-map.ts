import { PAGE_SIZE } from '../system/page.ts';
import type { Range } from '../system/range.ts';
import { KexecError } from './error.ts';
import { intersection, rangeText, subtractRanges } from './ranges.ts';

/** The numbers of e820 (arch/x86/include/asm/e820/types.h; ACPI specification, "Address Range Types"). */
export const E820_TYPES = {
  ram: 1,
  reserved: 2,
  acpi: 3,
  nvs: 4,
  unusable: 5,
  pmem: 7,
  /** `memmap=SIZE!START`: shown as persistent memory. */
  'legacy-pmem': 12,
} as const;

export type MemoryType = keyof typeof E820_TYPES;

/** Part of the memory map that a kernel is given. */
export interface MemoryMapEntry extends Range {
  readonly type: MemoryType;
}

/** What of an entry of /proc/iomem is needed: `end` is exclusive, `depth` is 0 at the left margin. */
export interface Resource extends Range {
  readonly name: string;
  readonly depth: number;
}

/** Below it, memory is the firmware's and what has to be reached in real mode. */
const LOW_MEMORY_END = 2 ** 20;

/** The kernel's names of firmware memory in /proc/iomem (e820_type_to_string). */
const FIRMWARE_NAMES: Readonly<Record<string, MemoryType>> = {
  Reserved: 'reserved',
  'ACPI Tables': 'acpi',
  'ACPI Non-volatile Storage': 'nvs',
  'Unusable memory': 'unusable',
  'Persistent Memory': 'pmem',
  'Persistent Memory (legacy)': 'legacy-pmem',
};

/**
 * Whether a resource is the running kernel's memory, hot-added memory of drivers too: `System RAM (kmem)`.
 */
export function isSystemRam({ name }: Resource): boolean {
  return name === 'System RAM' || name.startsWith('System RAM (');
}

/** What is reserved for a crash kernel, from the lowest: with `crashkernel=...,high` it is two ranges. */
export function crashReservations(resources: readonly Resource[]): Range[] {
  return resources
    .filter(({ name }) => name === 'Crash kernel')
    .map(({ start, end }) => ({ start, end }))
    .toSorted((a, b) => a.start - b.start);
}

/**
 * What a crash kernel can be loaded into. Where there are two reservations, it is the upper one (crashk_res);
 * the kernel takes no segment in the lower one, which is for buffers of devices
 * (sanity_check_segment_list).
 * @throws KexecError if nothing is reserved
 */
export function crashLoadRange(resources: readonly Resource[]): Range {
  const range = crashReservations(resources).at(-1);
  if (range === undefined)
    throw new KexecError(
      '/proc/iomem shows no memory that is reserved for a crash kernel; boot with crashkernel=320M',
    );
  return range;
}

/**
 * The memory of a crash kernel: RAM below 1 MiB and what is reserved for it. What the firmware has is named
 * as it is, so that the crash kernel finds ACPI tables and leaves the rest alone. As
 * crash_setup_memmap_entries has it (arch/x86/kernel/crash.c), and with persistent and unusable memory, as
 * kexec-tools has it.
 * @param resources of the running kernel, from /proc/iomem
 * @param kept what the crash kernel must not use though it lies in its memory: it becomes `reserved`
 * @throws KexecError if nothing is reserved for a crash kernel
 */
export function crashMemoryMap(resources: readonly Resource[], kept: readonly Range[]): MemoryMapEntry[] {
  crashLoadRange(resources);
  const low = resources.filter(isSystemRam).flatMap((ram) => {
    const part = intersection(ram, { start: 0, end: LOW_MEMORY_END });
    return part === undefined ? [] : [part];
  });
  const firmware = resources.flatMap(({ name, start, end }) => {
    const type = FIRMWARE_NAMES[name];
    return type === undefined ? [] : [{ start, end, type }];
  });
  const ram = [...low, ...crashReservations(resources)].map((range) => ({ ...range, type: 'ram' as const }));
  return memoryMapOf([
    ...ram,
    ...kept.map(({ start, end }) => ({ start, end, type: 'reserved' as const })),
    ...firmware,
  ]);
}

/**
 * A memory map from entries that may overlap: a later one takes its range from those before it. Sorted,
 * without overlaps; neighbours of one type are joined. RAM of less than a page is left out.
 */
export function memoryMapOf(entries: readonly MemoryMapEntry[]): MemoryMapEntry[] {
  const apart = entries.flatMap(({ start, end, type }, index) =>
    subtractRanges([{ start, end }], entries.slice(index + 1)).map((range) => ({ ...range, type })),
  );
  const joined: MemoryMapEntry[] = [];
  for (const entry of apart.toSorted((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last?.end === entry.start && last.type === entry.type)
      joined[joined.length - 1] = { ...last, end: entry.end };
    else joined.push(entry);
  }
  return joined.filter(({ start, end, type }) => type !== 'ram' || end - start >= PAGE_SIZE);
}

/** Bytes of an entry in boot_params and in SETUP_E820_EXT (struct boot_e820_entry). */
export const E820_ENTRY_BYTES = 20;

/**
 * The map as a table of struct boot_e820_entry.
 * @throws KexecError if it has an entry that is empty or overlaps the one before it
 */
export function encodeE820(map: readonly MemoryMapEntry[]): Buffer {
  const table = Buffer.alloc(map.length * E820_ENTRY_BYTES);
  map.forEach((entry, index) => {
    const { start, end, type } = entry;
    if (start >= end || start < (map[index - 1]?.end ?? 0))
      throw new KexecError(`the memory map is not in order at ${rangeText(entry)}; make it with memoryMapOf`);
    const at = index * E820_ENTRY_BYTES;
    table.writeBigUInt64LE(BigInt(start), at);
    table.writeBigUInt64LE(BigInt(end - start), at + 8);
    table.writeUInt32LE(E820_TYPES[type], at + 16);
  });
  return table;
}
