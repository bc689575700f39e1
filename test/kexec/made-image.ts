import type { Resource } from '../../src/kexec/memory-map.ts';

export const MIB = 2 ** 20;
export const GIB = 2 ** 30;

/** Fields of the setup header that a test may set. */
export interface ImageFields {
  readonly setupSectors?: number;
  readonly bootFlag?: number;
  readonly jumpBytes?: number;
  readonly magic?: string;
  readonly version?: number;
  readonly loadflags?: number;
  readonly initrdAddrMax?: number;
  readonly kernelAlignment?: number;
  readonly relocatable?: number;
  readonly xloadflags?: number;
  readonly cmdlineSize?: number;
  readonly prefAddress?: bigint;
  readonly initSize?: number;
  readonly protectedModeBytes?: number;
}

/** A bzImage of a few pages whose kernel is `0xcc` throughout. Everything else is as in Debian's kernels. */
export function madeImage(fields: ImageFields = {}): Buffer {
  const { setupSectors = 27, protectedModeBytes = 3 * 4096 + 100 } = fields;
  const setupBytes = ((setupSectors || 4) + 1) * 512;
  const file = Buffer.alloc(setupBytes + protectedModeBytes);
  file.fill(0xcc, setupBytes);
  file.writeUInt8(setupSectors, 0x1f1);
  file.writeUInt16LE(fields.bootFlag ?? 0xaa55, 0x1fe);
  file.set([0xeb, fields.jumpBytes ?? 0x6a], 0x200);
  file.write(fields.magic ?? 'HdrS', 0x202, 'latin1');
  file.writeUInt16LE(fields.version ?? 0x20f, 0x206);
  file.writeUInt8(fields.loadflags ?? 1, 0x211);
  file.writeUInt32LE(fields.initrdAddrMax ?? 0x7fffffff, 0x22c);
  file.writeUInt32LE(fields.kernelAlignment ?? 2 * MIB, 0x230);
  file.writeUInt8(fields.relocatable ?? 1, 0x234);
  file.writeUInt16LE(fields.xloadflags ?? 0x7f, 0x236);
  file.writeUInt32LE(fields.cmdlineSize ?? 2047, 0x238);
  file.writeBigUInt64LE(fields.prefAddress ?? 0x1000000n, 0x258);
  file.writeUInt32LE(fields.initSize ?? 4 * MIB, 0x260);
  return file;
}

/** Entries of /proc/iomem: `start`, last byte, name, and the depth where it is not 0. */
export function resources(...entries: readonly [number, number, string, number?][]): Resource[] {
  return entries.map(([start, last, name, depth = 0]) => ({ start, end: last + 1, name, depth }));
}

/** A guest of 2 GiB with 320 MiB reserved. */
export const small = resources(
  [0, 0xfff, 'Reserved'],
  [0x1000, 0x9fbff, 'System RAM'],
  [0x9fc00, 0x9ffff, 'Reserved'],
  [0xa0000, 0xbffff, 'PCI Bus 0000:00'],
  [0xf0000, 0xfffff, 'Reserved'],
  [0xf0000, 0xfffff, 'System ROM', 1],
  [0x100000, 0x7ffdcfff, 'System RAM'],
  [0x0d000000, 0x0dffffff, 'Kernel code', 1],
  [0x0f6dc000, 0x0fbfffff, 'Kernel bss', 1],
  [0x6a000000, 0x7dffffff, 'Crash kernel', 1],
  [0x7ffdd000, 0x7fffffff, 'ACPI Tables'],
  [0xb0000000, 0xbfffffff, 'PCI ECAM 0000 [bus 00-ff]'],
  [0xb0000000, 0xbfffffff, 'Reserved', 1],
);

/** boot_params of a running kernel in which every byte tells its offset. */
export function runningBootParams(): Buffer {
  return Buffer.from(Uint8Array.from({ length: 4096 }, (_, at) => (at * 7 + (at >> 8)) & 0xff));
}
