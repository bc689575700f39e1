import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { KexecError } from './error.ts';

/** What the next kernel has to be told of EFI, because the firmware tells it only once. */
export interface EfiState {
  /** Physical addresses: the firmware's vendor string, its configuration table, SMBIOS (0: none). */
  readonly fwVendor: bigint;
  readonly configTable: bigint;
  readonly smbios: bigint;
  /** Physical address of the ACPI root pointer; undefined if the firmware names none. */
  readonly rsdp: bigint | undefined;
  /** Runtime services: the addresses at which the first kernel has told the firmware to run. */
  readonly runtimeMap: readonly EfiMemoryDescriptor[];
}

/** efi_memory_desc_t (include/linux/efi.h; UEFI specification, GetMemoryMap). */
export interface EfiMemoryDescriptor {
  readonly type: number;
  readonly physical: bigint;
  readonly virtual: bigint;
  /** Of 4096 bytes. */
  readonly pages: bigint;
  readonly attribute: bigint;
}

/** Bytes of an efi_memory_desc_t, version 1. */
export const EFI_DESCRIPTOR_BYTES = 40;
/** Bytes of struct efi_setup_data (arch/x86/include/asm/efi.h). */
const EFI_SETUP_DATA_BYTES = 96;

/**
 * The state of EFI, from /sys/firmware/efi (Documentation/ABI/testing/sysfs-firmware-efi and
 * sysfs-firmware-efi-runtime-map). undefined if the machine was not booted by EFI, or has no runtime
 * services.
 * @param root directory that holds `sys`
 * @throws KexecError if a file is not as the kernel writes it
 */
export function readEfiState(root = '/'): EfiState | undefined {
  const directory = join(root, 'sys/firmware/efi');
  const runtimeMap = join(directory, 'runtime-map');
  if (!existsSync(runtimeMap)) return undefined;
  const descriptors = readdirSync(runtimeMap)
    .toSorted((a, b) => Number(a) - Number(b))
    .map((index) => readDescriptor(join(runtimeMap, index)));
  if (descriptors.length === 0) return undefined;
  const tables = readTables(join(directory, 'systab'));
  return {
    fwVendor: readAddress(join(directory, 'fw_vendor')),
    configTable: readAddress(join(directory, 'config_table')),
    smbios: tables.get('SMBIOS') ?? 0n,
    rsdp: tables.get('ACPI20') ?? tables.get('ACPI'),
    runtimeMap: descriptors,
  };
}

function readDescriptor(directory: string): EfiMemoryDescriptor {
  return {
    type: Number(readAddress(join(directory, 'type'))),
    physical: readAddress(join(directory, 'phys_addr')),
    virtual: readAddress(join(directory, 'virt_addr')),
    pages: readAddress(join(directory, 'num_pages')),
    attribute: readAddress(join(directory, 'attribute')),
  };
}

function readAddress(path: string): bigint {
  return parseAddress(readFileSync(path, 'utf8').trim(), path);
}

function parseAddress(text: string, path: string): bigint {
  if (!/^0x[0-9a-f]{1,16}$/i.test(text))
    throw new KexecError(`${path} has "${text}", not a hexadecimal number; run this as root`);
  return BigInt(text);
}

/** `ACPI20=0x7fb7e014`, one on each line. */
function readTables(path: string): ReadonlyMap<string, bigint> {
  const lines = readFileSync(path, 'utf8').split('\n').filter(Boolean);
  return new Map(
    lines.map((line) => {
      const [name = '', address = ''] = line.split('=');
      return [name, parseAddress(address, path)];
    }),
  );
}

/** The runtime map as the firmware would give it. */
export function encodeRuntimeMap(descriptors: readonly EfiMemoryDescriptor[]): Buffer {
  const map = Buffer.alloc(descriptors.length * EFI_DESCRIPTOR_BYTES);
  descriptors.forEach(({ type, physical, virtual, pages, attribute }, index) => {
    const at = index * EFI_DESCRIPTOR_BYTES;
    map.writeUInt32LE(type, at);
    map.writeBigUInt64LE(physical, at + 8);
    map.writeBigUInt64LE(virtual, at + 16);
    map.writeBigUInt64LE(pages, at + 24);
    map.writeBigUInt64LE(attribute, at + 32);
  });
  return map;
}

/** struct efi_setup_data: `fw_vendor`, one unused, `tables`, `smbios`, eight reserved. */
export function encodeEfiSetupData({ fwVendor, configTable, smbios }: EfiState): Buffer {
  const data = Buffer.alloc(EFI_SETUP_DATA_BYTES);
  data.writeBigUInt64LE(fwVendor, 0);
  data.writeBigUInt64LE(configTable, 16);
  data.writeBigUInt64LE(smbios, 24);
  return data;
}
