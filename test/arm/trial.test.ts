import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { cpioArchive } from '../../src/arm/cpio.ts';
import { ArmError } from '../../src/arm/errors.ts';
import { markFile } from '../../src/arm/loaded-mark.ts';
import { archivesOf, trialInputs } from '../../src/arm/trial.ts';

const archive = (path: string, length: number): Buffer =>
  Buffer.concat(cpioArchive([{ path, mode: 0o600, data: Buffer.alloc(length, 1) }]));

test("mkinitramfs's archives are found one after the other: microcode, padding, and what is compressed", () => {
  const parts = [archive('kernel/x86/microcode', 3), archive('lib/modules/a.ko.xz', 5), archive('init', 2)];
  const [first, second, last] = parts as [Buffer, Buffer, Buffer];
  for (const compress of [zstdCompressSync, gzipSync]) {
    const file = Buffer.concat([first, Buffer.alloc(508), second, compress(last)]);
    assert.deepEqual(archivesOf(file), parts);
  }
  assert.deepEqual(archivesOf(first), [first]);
});

test('what is cut off, damaged or compressed in another way is an error', () => {
  const whole = Buffer.concat([archive('early', 3), zstdCompressSync(archive('init', 200))]);
  assert.throws(() => archivesOf(whole.subarray(0, 100)), ArmError);
  assert.throws(() => archivesOf(whole.subarray(0, whole.length - 5)), /archive is damaged/);
  assert.throws(() => archivesOf(Buffer.from('\x5d\0\0lzma')), /neither with zstd nor with gzip/);
});

test('a trial counts for what is the same byte for byte; profile, configuration and mark are read by what was tried', () => {
  const file = (path: string, text: string) => ({ path, mode: 0o600, data: Buffer.from(text) });
  const inputs = (
    program: string,
    mode: number,
    profile: string,
    base = 'base',
    release = '6.12.1',
  ): string =>
    JSON.stringify(
      trialInputs(
        Buffer.from(base),
        [
          { ...file('otherworld/run/payload/crash-world.mjs', program), mode },
          file('otherworld/run/payload/profile', profile),
          file('otherworld/run/payload/manifest.json', profile),
          markFile(profile),
        ],
        release,
      ),
    );
  const tried = inputs('program', 0o600, 'now');
  assert.equal(inputs('program', 0o600, 'later'), tried);
  const others = [
    inputs('another', 0o600, 'now'),
    inputs('program', 0o700, 'now'),
    inputs('program', 0o600, 'now', 'another base'),
    inputs('program', 0o600, 'now', 'base', '6.12.2'),
  ];
  assert.equal(new Set([tried, ...others]).size, 5);
});
