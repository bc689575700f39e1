import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { endNonlocalBind, withNonlocalBind } from '../../src/system/nonlocal-bind.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-nonlocal-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'ip_nonlocal_bind');
const read = (): string => readFileSync(path, 'utf8').trim();
const missing = join(directory, 'none');

suite('binding to addresses that are not there yet', () => {
  test('is allowed for the step, and not after it', async () => {
    writeFileSync(path, '0\n');
    assert.equal(await withNonlocalBind(() => Promise.resolve(read()), [path, missing]), '2');
    assert.equal(read(), '0');
    await assert.rejects(
      withNonlocalBind(() => Promise.reject(new Error('no')), [path]),
      /^Error: no$/,
    );
    assert.equal(read(), '0');
  });

  test('stays as somebody else has set it before, or sets it meanwhile', async () => {
    for (const value of ['1', '0']) {
      writeFileSync(path, '1\n');
      await withNonlocalBind(() => Promise.resolve(writeFileSync(path, value)), [path]);
      assert.equal(read(), value);
      writeFileSync(path, '0\n');
      await withNonlocalBind(() => Promise.resolve(writeFileSync(path, value)), [path]);
      assert.equal(read(), value);
    }
  });

  test('is taken back by whoever comes next, if the program was ended', () => {
    writeFileSync(path, '2\n');
    endNonlocalBind([path, missing]);
    assert.equal(read(), '0');
    writeFileSync(path, '1\n');
    endNonlocalBind([path]);
    assert.equal(read(), '1');
  });
});
