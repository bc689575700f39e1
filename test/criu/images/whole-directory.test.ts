import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { ImageFile, ImageWriteError } from '../../../src/criu/images/image.ts';
import { writeWhole } from '../../../src/criu/images/whole-directory.ts';
import { openFixture } from '../../vmcore/fixtures.ts';

describe('a directory of images', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'otherworld-whole-'));
  after(() => rmSync(scratch, { recursive: true }));

  const fill = (part: string): string => {
    mkdirSync(join(part, 'below'));
    writeFileSync(join(part, 'below', 'file'), 'content');
    return part;
  };
  const fail = (part: string): never => {
    fill(part);
    throw new Error('no more');
  };

  it('has all that was written, or nothing of it', () => {
    const directory = join(scratch, 'new');
    assert.throws(() => writeWhole(directory, fail), /no more/);
    assert.ok(!existsSync(directory));
    const part = writeWhole(directory, fill);
    assert.ok(!existsSync(part));
    assert.deepEqual(readdirSync(directory, { recursive: true }).sort(), ['below', 'below/file']);
  });

  it('stays, empty, if it was there', () => {
    const directory = join(scratch, 'old');
    mkdirSync(directory);
    assert.throws(() => writeWhole(directory, fail), /no more/);
    assert.deepEqual(readdirSync(directory), []);
  });

  it('names the image that the disk has no room for', () => {
    const path = join(scratch, 'pages-1.img');
    const isNamed = (error: unknown) =>
      error instanceof ImageWriteError &&
      error.message.startsWith(`${path}: `) &&
      /no space left on device.*; check the free space/.test(error.message);
    // The lowest free number is given again: the image is on a full device then.
    const next = openSync('/dev/null', 'r');
    closeSync(next);
    const image = new ImageFile(path, []);
    closeSync(next);
    assert.equal(openSync('/dev/full', 'w'), next);
    assert.throws(() => image.bytes(Buffer.from('entry')), isNamed);
    const { physical } = openFixture('debian13');
    const [range] = physical.ranges;
    assert.throws(() => image.runs(physical, [{ physical: range?.physical ?? 0, length: 4096 }]), isNamed);
    image.close();
  });
});
