import { KexecError } from './error.ts';

/** What a bzImage says of itself. Sizes are in bytes. */
export interface BzImage {
  /** The setup header, as it lies in the file and in boot_params from {@link SETUP_HEADER_AT} on. */
  readonly setupHeader: Buffer;
  /** The protected-mode part: what is loaded into memory. */
  readonly protectedMode: Buffer;
  /** Where the 64-bit entry is in the protected-mode part. */
  readonly entry64: number;
  /** Of the kernel's address; a power of two. */
  readonly alignment: number;
  /** Lowest address: a kernel that lies below it moves there by itself. */
  readonly preferredAddress: number;
  /** What the kernel needs from its address on until it knows its memory map. */
  readonly initBytes: number;
  /** Of the command line, without the NUL at its end. */
  readonly commandLineBytes: number;
  /** Kernel, boot_params, command line and initrd may lie above 4 GiB. */
  readonly above4GiB: boolean;
  /** End (exclusive) of what an initrd may take, if the kernel must lie below 4 GiB. */
  readonly initrdEnd: number;
  /** It can be entered while page tables have five levels. */
  readonly fiveLevels: boolean;
}

/** Where struct setup_header begins in a bzImage and in struct boot_params (boot.rst). */
export const SETUP_HEADER_AT = 0x1f1;
/** What there is room for in struct boot_params: the next member is at 0x290. */
const SETUP_HEADER_MAX_BYTES = 0x290 - SETUP_HEADER_AT;

/** Offsets in the file: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
const AT = {
  setup_sects: 0x1f1,
  boot_flag: 0x1fe,
  /** Second byte of the jump at 0x200: how many bytes of header follow 0x202. */
  jump_bytes: 0x201,
  header: 0x202,
  version: 0x206,
  loadflags: 0x211,
  initrd_addr_max: 0x22c,
  kernel_alignment: 0x230,
  relocatable_kernel: 0x234,
  xloadflags: 0x236,
  cmdline_size: 0x238,
  pref_address: 0x258,
  init_size: 0x260,
} as const;
const SECTOR_BYTES = 512;
const BOOT_FLAG = 0xaa55;
const HEADER_MAGIC = 'HdrS';
/** The first with xloadflags. */
const OLDEST_VERSION = 0x020c;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1 << 0;
const XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1;
const XLF_5LEVEL = 1 << 5;
/** Offset of the 64-bit entry in the protected-mode part (boot.rst, "64-bit Boot Protocol"). */
const ENTRY_64 = 0x200;
const HEADER_END = AT.init_size + 4;

/**
 * Reads the headers of a bzImage. Fields are those of the x86 boot protocol
 * (Documentation/arch/x86/boot.rst).
 * @param file all of it; the result refers to its bytes
 * @param name of the file, for messages
 * @throws KexecError if it is none, or cannot be loaded anywhere and entered in 64-bit mode
 */
export function parseBzImage(file: Buffer, name = 'the kernel image'): BzImage {
  requireMagic(file, name);
  const xloadflags = file.readUInt16LE(AT.xloadflags);
  requireLoadable(file, xloadflags, name);
  const setupBytes = ((file.readUInt8(AT.setup_sects) || 4) + 1) * SECTOR_BYTES;
  if (file.length <= setupBytes + ENTRY_64)
    throw new KexecError(
      `${name} is cut off: it has ${file.length} bytes, and its kernel begins at ${setupBytes}; copy it again`,
    );
  const headerEnd = AT.header + file.readUInt8(AT.jump_bytes);
  if (headerEnd < HEADER_END || headerEnd - SETUP_HEADER_AT > SETUP_HEADER_MAX_BYTES)
    throw new KexecError(
      `${name} is damaged: its setup header ends at ${hex(headerEnd)} (jump at 0x200), ` +
        `not between ${hex(HEADER_END)} and ${hex(SETUP_HEADER_AT + SETUP_HEADER_MAX_BYTES)}`,
    );
  const protectedMode = file.subarray(setupBytes);
  return {
    setupHeader: file.subarray(SETUP_HEADER_AT, headerEnd),
    protectedMode,
    entry64: ENTRY_64,
    alignment: alignmentOf(file, name),
    preferredAddress: preferredAddressOf(file, name),
    initBytes: initBytesOf(file, protectedMode.length, name),
    commandLineBytes: file.readUInt32LE(AT.cmdline_size),
    above4GiB: (xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G) !== 0,
    initrdEnd: file.readUInt32LE(AT.initrd_addr_max) + 1,
    fiveLevels: (xloadflags & XLF_5LEVEL) !== 0,
  };
}

function requireMagic(file: Buffer, name: string): void {
  if (file.length < HEADER_END)
    throw new KexecError(`${name} has ${file.length} bytes: too few for a bzImage; name a vmlinuz`);
  const flag = file.readUInt16LE(AT.boot_flag);
  if (flag !== BOOT_FLAG)
    throw new KexecError(`${name} is no bzImage: ${hex(flag)} at 0x1fe, not 0xaa55; name a vmlinuz`);
  const magic = file.toString('latin1', AT.header, AT.header + HEADER_MAGIC.length);
  if (magic !== HEADER_MAGIC)
    throw new KexecError(`${name} is no bzImage: no "HdrS" at 0x202; name a vmlinuz`);
  const version = file.readUInt16LE(AT.version);
  if (version < OLDEST_VERSION)
    throw new KexecError(
      `${name} follows version ${version >> 8}.${version & 0xff} of the boot protocol; needed is 2.12, which ` +
        'Linux 3.8 and later have',
    );
}

function requireLoadable(file: Buffer, xloadflags: number, name: string): void {
  if ((file.readUInt8(AT.loadflags) & LOADED_HIGH) === 0)
    throw new KexecError(`${name} is a zImage (LOADED_HIGH is not set); a bzImage is needed`);
  if ((xloadflags & XLF_KERNEL_64) === 0)
    throw new KexecError(`${name} has no 64-bit entry (XLF_KERNEL_64 is not set); a 64-bit kernel is needed`);
  if (file.readUInt8(AT.relocatable_kernel) === 0)
    throw new KexecError(`${name} cannot be loaded elsewhere: it was built without CONFIG_RELOCATABLE`);
}

function alignmentOf(file: Buffer, name: string): number {
  const alignment = file.readUInt32LE(AT.kernel_alignment);
  if (alignment === 0 || (alignment & (alignment - 1)) !== 0)
    throw new KexecError(
      `${name} is damaged: kernel_alignment (0x230) is ${hex(alignment)}, no power of two`,
    );
  return alignment;
}

function preferredAddressOf(file: Buffer, name: string): number {
  const address = file.readBigUInt64LE(AT.pref_address);
  if (address >= 1n << 32n)
    throw new KexecError(
      `${name} is damaged: pref_address (0x258) is 0x${address.toString(16)}, above 4 GiB`,
    );
  return Number(address);
}

function initBytesOf(file: Buffer, protectedModeBytes: number, name: string): number {
  const bytes = file.readUInt32LE(AT.init_size);
  if (bytes < protectedModeBytes)
    throw new KexecError(
      `${name} is damaged: init_size (0x260) is ${bytes}, less than the ${protectedModeBytes} bytes to load`,
    );
  return bytes;
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
