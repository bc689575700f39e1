import type { Range } from '../system/range.ts';
import { type BzImage, SETUP_HEADER_AT } from './bzimage.ts';
import { EFI_DESCRIPTOR_BYTES, type EfiState, encodeEfiSetupData, encodeRuntimeMap } from './efi.ts';
import { KexecError } from './error.ts';
import { E820_ENTRY_BYTES, encodeE820, type MemoryMapEntry } from './memory-map.ts';

/** Bytes of struct boot_params, the zero page. */
export const BOOT_PARAMS_BYTES = 4096;

/**
 * Offsets in struct boot_params: Documentation/arch/x86/zero-page.rst and
 * arch/x86/include/uapi/asm/bootparam.h; those of the setup header, boot.rst.
 */
const AT = {
  /** screen_info.ext_mem_k */
  ext_mem_k: 0x002,
  acpi_rsdp_addr: 0x070,
  ext_ramdisk_image: 0x0c0,
  ext_ramdisk_size: 0x0c4,
  ext_cmd_line_ptr: 0x0c8,
  efi_loader_signature: 0x1c0,
  efi_memdesc_size: 0x1c8,
  efi_memmap: 0x1d0,
  efi_memmap_size: 0x1d4,
  efi_memmap_hi: 0x1dc,
  e820_entries: 0x1e8,
  type_of_loader: 0x210,
  loadflags: 0x211,
  code32_start: 0x214,
  ramdisk_image: 0x218,
  ramdisk_size: 0x21c,
  cmd_line_ptr: 0x228,
  setup_data: 0x250,
  e820_table: 0x2d0,
} as const;

/** What stays true of the machine and is taken over from the running kernel's boot_params: offset, bytes. */
const TAKEN_OVER: Readonly<Record<string, readonly [at: number, bytes: number]>> = {
  screen_info: [0x000, 0x40],
  acpi_rsdp_addr: [0x070, 8],
  edid_info: [0x140, 0x80],
  eddbuf_entries: [0x1e9, 1],
  edd_mbr_sig_buf_entries: [0x1ea, 1],
  hardware_subarch: [0x23c, 4],
  edd_mbr_sig_buffer: [0x290, 16 * 4],
  /** EDDMAXNR of struct edd_info. */
  eddbuf: [0xd00, 6 * 82],
};

/** The same, if the firmware's runtime services are handed on. */
const TAKEN_OVER_WITH_EFI: typeof TAKEN_OVER = {
  /** Signature, system table and version of the memory descriptors; the map itself is a new one. */
  efi_loader_signature: [0x1c0, 4],
  efi_systab: [0x1c4, 4],
  efi_memdesc_version: [0x1cc, 4],
  efi_systab_hi: [0x1d8, 4],
  secure_boot: [0x1ec, 1],
};

/** A loader without a number of its own. */
const LOADER_UNDEFINED = 0xff;
const LOADED_HIGH = 1;
/** Of a firmware of 64 bits: a kernel of 64 bits can call its services. */
const EFI64_SIGNATURE = 'EL64';
const E820_MAX_ENTRIES = 128;

/** Types of struct setup_data (arch/x86/include/uapi/asm/setup_data.h). */
const SETUP_E820_EXT = 1;
const SETUP_EFI = 4;
const SETUP_RNG_SEED = 9;
const SETUP_DATA_HEADER_BYTES = 16;
/** Of what lies behind the zero page: the kernel reads it with words of 8 bytes. */
const ALIGNMENT = 16;

/** What does not depend on addresses, or on no others than the command line's own. */
export interface BootParamsContent {
  readonly image: BzImage;
  /** Without a NUL. */
  readonly commandLine: string;
  readonly memoryMap: readonly MemoryMapEntry[];
  /** boot_params of the running kernel: the 4096 bytes of /sys/kernel/boot_params/data. */
  readonly running: Buffer;
  readonly efi: EfiState | undefined;
  /**
   * Random bytes for the kernel's generator; the kernel's own loader gives 32. Without them it has to gather
   * its own.
   */
  readonly rngSeed?: Buffer | undefined;
}

/** Where things are; physical addresses. */
export interface BootParamsAddresses {
  /** Of the zero page itself. */
  readonly bootParams: number;
  /** Of the protected-mode part. */
  readonly kernel: number;
  readonly initrd: Range | undefined;
}

interface Layout {
  readonly commandLine: Buffer;
  readonly runtimeMapAt: number;
  readonly runtimeMap: Buffer;
  readonly setupData: readonly { readonly at: number; readonly type: number; readonly data: Buffer }[];
  readonly bytes: number;
}

/** How many bytes {@link encodeBootParams} makes, wherever they come to lie. */
export function bootParamsBytes(content: BootParamsContent): number {
  return layoutOf(content).bytes;
}

/**
 * struct boot_params, and behind it what it points to: the command line, the firmware's runtime map, and the
 * list of struct setup_data. It takes over what the kernel's own loader does (arch/x86/kernel/
 * kexec-bzimage64.c), and EDID; no IMA log. More entries of the memory map than fit go into SETUP_E820_EXT.
 * @throws KexecError if the command line is too long for the kernel, or the running kernel's boot_params have
 *   another size
 */
export function encodeBootParams(content: BootParamsContent, addresses: BootParamsAddresses): Buffer {
  const { image, memoryMap } = content;
  const layout = layoutOf(content);
  const params = Buffer.alloc(layout.bytes);
  image.setupHeader.copy(params, SETUP_HEADER_AT);
  takeOver(params, content.running, TAKEN_OVER);
  params.writeUInt16LE(0, AT.ext_mem_k);
  params.writeUInt8(LOADER_UNDEFINED, AT.type_of_loader);
  params.writeUInt8(LOADED_HIGH, AT.loadflags);
  if (addresses.kernel < 2 ** 32) params.writeUInt32LE(addresses.kernel, AT.code32_start);
  writeSplit(params, addresses.initrd?.start ?? 0, AT.ramdisk_image, AT.ext_ramdisk_image);
  const initrdBytes = addresses.initrd === undefined ? 0 : addresses.initrd.end - addresses.initrd.start;
  writeSplit(params, initrdBytes, AT.ramdisk_size, AT.ext_ramdisk_size);
  writeSplit(params, addresses.bootParams + BOOT_PARAMS_BYTES, AT.cmd_line_ptr, AT.ext_cmd_line_ptr);
  layout.commandLine.copy(params, BOOT_PARAMS_BYTES);
  const table = encodeE820(memoryMap).subarray(0, E820_MAX_ENTRIES * E820_ENTRY_BYTES);
  params.writeUInt8(table.length / E820_ENTRY_BYTES, AT.e820_entries);
  table.copy(params, AT.e820_table);
  if (layout.runtimeMap.length > 0) writeEfi(params, content, layout, addresses.bootParams);
  writeSetupData(params, layout, addresses.bootParams);
  return params;
}

function layoutOf(content: BootParamsContent): Layout {
  const { image, commandLine, memoryMap, running, efi } = content;
  if (running.length !== BOOT_PARAMS_BYTES)
    throw new KexecError(
      `boot_params of the running kernel have ${running.length} bytes, not ${BOOT_PARAMS_BYTES}; ` +
        'pass what /sys/kernel/boot_params/data has',
    );
  const text = Buffer.from(`${commandLine}\0`);
  requireCommandLine(commandLine, text.length - 1, image.commandLineBytes);
  const handedOn = handsOnEfi(running) ? efi : undefined;
  const runtimeMap = handedOn === undefined ? Buffer.alloc(0) : encodeRuntimeMap(handedOn.runtimeMap);
  const runtimeMapAt = aligned(BOOT_PARAMS_BYTES + text.length);
  let at = aligned(runtimeMapAt + runtimeMap.length);
  const setupData = [
    { type: SETUP_E820_EXT, data: encodeE820(memoryMap).subarray(E820_MAX_ENTRIES * E820_ENTRY_BYTES) },
    { type: SETUP_EFI, data: handedOn === undefined ? Buffer.alloc(0) : encodeEfiSetupData(handedOn) },
    { type: SETUP_RNG_SEED, data: content.rngSeed ?? Buffer.alloc(0) },
  ]
    .filter(({ data }) => data.length > 0)
    .map((entry) => {
      const placed = { ...entry, at };
      at = aligned(at + SETUP_DATA_HEADER_BYTES + entry.data.length);
      return placed;
    });
  return { commandLine: text, runtimeMapAt, runtimeMap, setupData, bytes: at };
}

function requireCommandLine(commandLine: string, bytes: number, maximum: number): void {
  if (commandLine.includes('\0')) throw new KexecError('the command line has a NUL in it; leave it out');
  if (bytes > maximum)
    throw new KexecError(
      `the command line has ${bytes} bytes, and the kernel reads ${maximum} (cmdline_size); ` +
        `leave out at least ${bytes - maximum}: ${commandLine.slice(0, 60)}…`,
    );
}

/** Firmware of 32 bits is not called by a kernel that was entered in 64-bit mode. */
function handsOnEfi(running: Buffer): boolean {
  const at = AT.efi_loader_signature;
  return running.toString('latin1', at, at + 4) === EFI64_SIGNATURE;
}

function takeOver(params: Buffer, running: Buffer, members: typeof TAKEN_OVER): void {
  for (const [at, bytes] of Object.values(members)) running.copy(params, at, at, at + bytes);
}

function writeEfi(params: Buffer, content: BootParamsContent, layout: Layout, address: number): void {
  takeOver(params, content.running, TAKEN_OVER_WITH_EFI);
  params.writeUInt32LE(EFI_DESCRIPTOR_BYTES, AT.efi_memdesc_size);
  writeSplit(params, address + layout.runtimeMapAt, AT.efi_memmap, AT.efi_memmap_hi);
  params.writeUInt32LE(layout.runtimeMap.length, AT.efi_memmap_size);
  layout.runtimeMap.copy(params, layout.runtimeMapAt);
  const rsdp = content.efi?.rsdp;
  if (rsdp !== undefined && params.readBigUInt64LE(AT.acpi_rsdp_addr) === 0n)
    params.writeBigUInt64LE(rsdp, AT.acpi_rsdp_addr);
}

function writeSetupData(params: Buffer, { setupData }: Layout, address: number): void {
  const [first] = setupData;
  params.writeBigUInt64LE(first === undefined ? 0n : BigInt(address + first.at), AT.setup_data);
  setupData.forEach(({ at, type, data }, index) => {
    const next = setupData[index + 1];
    params.writeBigUInt64LE(next === undefined ? 0n : BigInt(address + next.at), at);
    params.writeUInt32LE(type, at + 8);
    params.writeUInt32LE(data.length, at + 12);
    data.copy(params, at + SETUP_DATA_HEADER_BYTES);
  });
}

/** A number of 64 bits whose halves lie apart. */
function writeSplit(params: Buffer, value: number, lowAt: number, highAt: number): void {
  params.writeUInt32LE(value % 2 ** 32, lowAt);
  params.writeUInt32LE(Math.floor(value / 2 ** 32), highAt);
}

function aligned(at: number): number {
  return Math.ceil(at / ALIGNMENT) * ALIGNMENT;
}
