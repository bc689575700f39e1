import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { type BootParamsContent, bootParamsBytes, encodeBootParams } from '../../src/kexec/boot-params.ts';
import { parseBzImage } from '../../src/kexec/bzimage.ts';
import type { EfiState } from '../../src/kexec/efi.ts';
import type { MemoryMapEntry } from '../../src/kexec/memory-map.ts';
import { GIB, madeImage, runningBootParams } from './made-image.ts';

const addresses = {
  bootParams: 0x7dfec000,
  kernel: 0x79600000,
  initrd: { start: 0x7ce00000, end: 0x7ce12345 },
};

function contentWith(change: Partial<BootParamsContent> = {}): BootParamsContent {
  return {
    image: parseBzImage(madeImage()),
    commandLine: 'root=/dev/vda quiet',
    memoryMap: [{ start: 0x1000, end: 0x9f000, type: 'ram' }],
    running: runningBootParams(),
    efi: undefined,
    ...change,
  };
}

/** Ranges of 8 KiB with 4 KiB between them. */
function entries(count: number): MemoryMapEntry[] {
  return Array.from({ length: count }, (_, i) => ({
    start: i * 0x3000,
    end: i * 0x3000 + 0x2000,
    type: 'ram',
  }));
}

/** The list of struct setup_data, followed as the kernel does. */
function setupData(params: Buffer, base: number): { type: number; data: Buffer }[] {
  const list = [];
  for (let at = Number(params.readBigUInt64LE(0x250)); at !== 0; ) {
    const offset = at - base;
    const [type, length] = [params.readUInt32LE(offset + 8), params.readUInt32LE(offset + 12)];
    list.push({ type, data: params.subarray(offset + 16, offset + 16 + length) });
    at = Number(params.readBigUInt64LE(offset));
  }
  return list;
}

const efi: EfiState = {
  fwVendor: 0x7fea0000n,
  configTable: 0x7fea1000n,
  smbios: 0x7fea2000n,
  rsdp: 0x7fb7e014n,
  runtimeMap: [
    { type: 5, physical: 0x7f000000n, virtual: 0xffff_ffff_0000_0000n, pages: 16n, attribute: 1n << 63n },
    { type: 6, physical: 0x7f100000n, virtual: 0xffff_fffe_ff00_0000n, pages: 2n, attribute: 0xfn },
  ],
};

function runningWithEfi(signature: string): Buffer {
  const running = runningBootParams();
  running.write(signature, 0x1c0, 'latin1');
  running.fill(0, 0x70, 0x78);
  return running;
}

suite('boot_params', () => {
  test('have the header of the image and what the loader says', () => {
    const content = contentWith();
    const params = encodeBootParams(content, addresses);
    assert.equal(params.toString('latin1', 0x202, 0x206), 'HdrS');
    assert.equal(params.readUInt32LE(0x260), content.image.initBytes);
    assert.equal(params.readUInt8(0x210), 0xff);
    assert.equal(params.readUInt8(0x211), 1);
    assert.equal(params.readUInt32LE(0x214), addresses.kernel);
    assert.equal(params.readUInt32LE(0x218), 0x7ce00000);
    assert.equal(params.readUInt32LE(0x21c), 0x12345);
    assert.equal(params.readUInt8(0x1ef), 0, 'the sentinel says that the zero page is clean');
    assert.equal(params.length, bootParamsBytes(content));
  });

  test('point to the command line, which ends with a NUL', () => {
    const params = encodeBootParams(contentWith(), addresses);
    const at = params.readUInt32LE(0x228) - addresses.bootParams;
    assert.equal(params.toString('latin1', at, at + 20), 'root=/dev/vda quiet\0');
  });

  test('have addresses above 4 GiB in two halves', () => {
    const above = { bootParams: 20 * GIB, kernel: 21 * GIB, initrd: { start: 22 * GIB, end: 27 * GIB + 5 } };
    const params = encodeBootParams(contentWith(), above);
    const halves = (low: number, high: number) =>
      params.readUInt32LE(high) * 2 ** 32 + params.readUInt32LE(low);
    assert.equal(halves(0x228, 0xc8), 20 * GIB + 4096);
    assert.equal(halves(0x218, 0xc0), 22 * GIB);
    assert.equal(halves(0x21c, 0xc4), 5 * GIB + 5);
    assert.equal(params.readUInt32LE(0x214), 0);
  });

  test('name no initrd if there is none', () => {
    const params = encodeBootParams(contentWith(), { ...addresses, initrd: undefined });
    assert.deepEqual([params.readUInt32LE(0x218), params.readUInt32LE(0x21c)], [0, 0]);
  });

  test('take over what is of the machine, and nothing else', () => {
    const running = runningBootParams();
    const params = encodeBootParams(contentWith({ running, memoryMap: [] }), addresses);
    const same: readonly [number, number][] = [
      [0x000, 0x002],
      [0x004, 0x040],
      [0x070, 0x078],
      [0x140, 0x1c0],
      [0x1e9, 0x1eb],
      [0x23c, 0x240],
      [0x290, 0x2d0],
      [0xd00, 0xeec],
    ];
    for (const [from, to] of same)
      assert.deepEqual(params.subarray(from, to), running.subarray(from, to), `0x${from.toString(16)}`);
    const zero: readonly [number, number][] = [
      [0x002, 0x004],
      [0x040, 0x070],
      [0x078, 0x0c0],
      [0x0cc, 0x140],
      [0x1c0, 0x1e9],
      [0x1eb, 0x1f1],
      [0x2d0, 0xd00],
      [0xeec, 0x1000],
    ];
    for (const [from, to] of zero)
      assert.ok(
        params.subarray(from, to).every((byte) => byte === 0),
        `0x${from.toString(16)}`,
      );
  });

  test('have the memory map', () => {
    const params = encodeBootParams(contentWith({ memoryMap: entries(128) }), addresses);
    assert.equal(params.readUInt8(0x1e8), 128);
    assert.equal(params.readBigUInt64LE(0x2d0 + 127 * 20), BigInt(127 * 0x3000));
    assert.deepEqual(setupData(params, addresses.bootParams), []);
  });

  test('have what does not fit of it in SETUP_E820_EXT', () => {
    const params = encodeBootParams(contentWith({ memoryMap: entries(131) }), addresses);
    assert.equal(params.readUInt8(0x1e8), 128);
    const [rest, ...none] = setupData(params, addresses.bootParams);
    assert.deepEqual(none, []);
    assert.equal(rest?.type, 1);
    assert.equal(rest.data.length, 3 * 20);
    assert.equal(rest.data.readBigUInt64LE(40), BigInt(130 * 0x3000));
  });

  test('hand on the runtime services of EFI', () => {
    const running = runningWithEfi('EL64');
    const content = contentWith({ running, efi, memoryMap: entries(129) });
    const params = encodeBootParams(content, addresses);
    assert.deepEqual(params.subarray(0x1c0, 0x1c8), running.subarray(0x1c0, 0x1c8));
    assert.equal(params.readUInt32LE(0x1c8), 40);
    assert.equal(params.readUInt8(0x1ec), running.readUInt8(0x1ec));
    assert.equal(params.readBigUInt64LE(0x70), efi.rsdp);
    const at = params.readUInt32LE(0x1d0) - addresses.bootParams;
    assert.equal(params.readUInt32LE(0x1d4), 80);
    assert.equal(params.readUInt32LE(at + 40), 6);
    assert.equal(params.readBigUInt64LE(at + 48), 0x7f100000n);
    assert.equal(params.readBigUInt64LE(at + 56), 0xffff_fffe_ff00_0000n);
    assert.equal(params.readBigUInt64LE(at + 64), 2n);
    assert.equal(params.readBigUInt64LE(at + 32), 1n << 63n);
    const [ofMap, ofEfi] = setupData(params, addresses.bootParams);
    assert.deepEqual([ofMap?.type, ofEfi?.type, ofEfi?.data.length], [1, 4, 96]);
    assert.deepEqual(
      [0, 8, 16, 24, 32].map((offset) => ofEfi?.data.readBigUInt64LE(offset)),
      [efi.fwVendor, 0n, efi.configTable, efi.smbios, 0n],
    );
  });

  test('have random bytes for the generator, if there are some', () => {
    const rngSeed = Buffer.alloc(32, 0x42);
    const params = encodeBootParams(contentWith({ rngSeed }), addresses);
    assert.deepEqual(setupData(params, addresses.bootParams), [{ type: 9, data: rngSeed }]);
  });

  test('keep the ACPI root pointer that the boot loader named', () => {
    const running = runningWithEfi('EL64');
    running.writeBigUInt64LE(0x1234n, 0x70);
    assert.equal(encodeBootParams(contentWith({ running, efi }), addresses).readBigUInt64LE(0x70), 0x1234n);
  });

  test('say nothing of EFI if its firmware has 32 bits', () => {
    const params = encodeBootParams(contentWith({ running: runningWithEfi('EL32'), efi }), addresses);
    assert.ok(params.subarray(0x1c0, 0x1e0).every((byte) => byte === 0));
    assert.deepEqual(setupData(params, addresses.bootParams), []);
  });

  test('refuse a command line that the kernel would cut off', () => {
    const long = contentWith({ commandLine: 'a'.repeat(2048) });
    assert.throws(() => encodeBootParams(long, addresses), {
      name: 'KexecError',
      message: /has 2048 bytes, and the kernel reads 2047 \(cmdline_size\); leave out at least 1/,
    });
    assert.equal(bootParamsBytes(contentWith({ commandLine: 'a'.repeat(2047) })), 4096 + 2048);
    assert.throws(() => bootParamsBytes(contentWith({ commandLine: 'a\0b' })), /has a NUL in it/);
  });

  test('refuse boot_params of another size', () => {
    const short = contentWith({ running: Buffer.alloc(100) });
    assert.throws(
      () => bootParamsBytes(short),
      /have 100 bytes, not 4096; pass what \/sys\/kernel\/boot_params/,
    );
  });
});
