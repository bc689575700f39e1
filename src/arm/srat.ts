import { existsSync } from 'node:fs';
import type { IomemEntry } from './iomem.ts';

/**
 * Where the kernel looks for tables in an initramfs
 * (Documentation/admin-guide/acpi/initrd_table_override.rst).
 */
export const SRAT_PATH = 'kernel/firmware/acpi/SRAT.aml';

const HEADER_BYTES = 48;
const MEMORY_AFFINITY_BYTES = 40;
const MEMORY_AFFINITY = 1;
const ENABLED = 1;

/** Whether the firmware has a table of its own that says which memory belongs to which node. */
export function firmwareHasSrat(tables = '/sys/firmware/acpi/tables'): boolean {
  return existsSync(`${tables}/SRAT`);
}

/**
 * An ACPI System Resource Affinity Table (ACPI 6.5, 5.2.16) that puts all memory into node 0.
 *
 * Without any, the crash kernel believes that node 0 ends where its own little memory ends (dummy_numa_init
 * in mm/numa_memblks.c), and kmem rejects old memory above that for having no node.
 */
export function singleNodeSrat(entries: readonly IomemEntry[]): Buffer {
  const ends = entries.filter(({ name }) => name === 'System RAM').map(({ end }) => end);
  const table = Buffer.alloc(HEADER_BYTES + MEMORY_AFFINITY_BYTES);
  table.write('SRAT', 0, 'latin1');
  table.writeUInt32LE(table.length, 4);
  table.writeUInt8(3, 8);
  table.write('OTHERWOTHRWRLD', 10, 'latin1');
  table.writeUInt32LE(1, 24);
  table.write('OTHW', 28, 'latin1');
  table.writeUInt32LE(1, 32);
  // Reserved, must be 1 for compatibility with revision 1.
  table.writeUInt32LE(1, 36);
  table.writeUInt8(MEMORY_AFFINITY, HEADER_BYTES);
  table.writeUInt8(MEMORY_AFFINITY_BYTES, HEADER_BYTES + 1);
  table.writeBigUInt64LE(BigInt(Math.max(0, ...ends)), HEADER_BYTES + 16);
  table.writeUInt32LE(ENABLED, HEADER_BYTES + 28);
  table.writeUInt8(checksum(table), 9);
  return table;
}

/** What makes all bytes add up to a multiple of 256. */
function checksum(table: Buffer): number {
  return (256 - (table.reduce((sum, byte) => sum + byte, 0) % 256)) % 256;
}
