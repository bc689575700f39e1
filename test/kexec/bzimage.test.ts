import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { parseBzImage } from '../../src/kexec/bzimage.ts';
import { KexecError } from '../../src/kexec/error.ts';
import { type ImageFields, MIB, madeImage } from './made-image.ts';

suite('a bzImage', () => {
  test('says where its kernel is and what it needs', () => {
    const image = parseBzImage(madeImage());
    assert.equal(image.protectedMode.length, 3 * 4096 + 100);
    assert.ok(image.protectedMode.every((byte) => byte === 0xcc));
    assert.equal(image.entry64, 0x200);
    assert.equal(image.alignment, 2 * MIB);
    assert.equal(image.preferredAddress, 16 * MIB);
    assert.equal(image.initBytes, 4 * MIB);
    assert.equal(image.commandLineBytes, 2047);
    assert.equal(image.initrdEnd, 0x80000000);
    assert.equal(image.above4GiB, true);
    assert.equal(image.fiveLevels, true);
  });

  test('has a setup header as long as its jump says', () => {
    const image = parseBzImage(madeImage({ jumpBytes: 0x6e }));
    assert.equal(image.setupHeader.length, 0x202 + 0x6e - 0x1f1);
  });

  test('has four setup sectors if it says none', () => {
    const image = parseBzImage(madeImage({ setupSectors: 0 }));
    assert.equal(image.protectedMode.length, 3 * 4096 + 100);
    assert.equal(image.protectedMode[0], 0xcc);
  });

  test('may have to lie below 4 GiB, and not know page tables of five levels', () => {
    const image = parseBzImage(madeImage({ xloadflags: 1 }));
    assert.equal(image.above4GiB, false);
    assert.equal(image.fiveLevels, false);
  });

  const refused: readonly [ImageFields, RegExp][] = [
    [{ bootFlag: 0x1234 }, /x is no bzImage: 0x1234 at 0x1fe, not 0xaa55/],
    [{ magic: 'HdrT' }, /x is no bzImage: no "HdrS" at 0x202/],
    [{ version: 0x20b }, /follows version 2\.11 of the boot protocol; needed is 2\.12/],
    [{ loadflags: 0 }, /is a zImage/],
    [{ xloadflags: 0x7e }, /has no 64-bit entry/],
    [{ relocatable: 0 }, /built without CONFIG_RELOCATABLE/],
    [{ kernelAlignment: 3 * MIB }, /kernel_alignment \(0x230\) is 0x300000, no power of two/],
    [{ kernelAlignment: 0 }, /kernel_alignment \(0x230\) is 0x0/],
    [{ prefAddress: 1n << 40n }, /pref_address \(0x258\) is 0x10000000000, above 4 GiB/],
    [{ initSize: 4096 }, /init_size \(0x260\) is 4096, less than the 12388 bytes to load/],
    [{ jumpBytes: 0x10 }, /its setup header ends at 0x212/],
    [{ jumpBytes: 0xff }, /its setup header ends at 0x301/],
    [{ protectedModeBytes: 0x200 }, /is cut off: it has 14848 bytes, and its kernel begins at 14336/],
  ];
  for (const [fields, message] of refused)
    test(`is refused with ${JSON.stringify(fields, (_, value) => (typeof value === 'bigint' ? `${value}` : value))}`, () => {
      assert.throws(() => parseBzImage(madeImage(fields), 'x'), { name: 'KexecError', message });
    });

  test('is refused if it is another file', () => {
    assert.throws(
      () => parseBzImage(Buffer.from('#!/bin/sh\n'), 'x'),
      /x has 10 bytes: too few for a bzImage/,
    );
    assert.throws(() => parseBzImage(Buffer.alloc(100_000)), KexecError);
  });
});
