import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { endNonlocalBind, withNonlocalBind } from '../../src/system/nonlocal-bind.ts';

const directory = mkdtempSync(join(tmpdir(), 'otherworld-nonlocal-'));
after(() => rmSync(directory, { recursive: true }));
const path = join(directory, 'ip_nonlocal_bind');
const record = join(directory, 'record');
const read = (): string => readFileSync(path, 'utf8').trim();
const missing = join(directory, 'none');

suite('binding to addresses that are not there yet', () => {
  test('is allowed for the step, and not after it', async () => {
    writeFileSync(path, '0\n');
    assert.equal(await withNonlocalBind(() => Promise.resolve(read()), [path, missing], record), '2');
    assert.equal(read(), '0');
    await assert.rejects(
      withNonlocalBind(() => Promise.reject(new Error('no')), [path], record),
      /^Error: no$/,
    );
    assert.equal(read(), '0');
    assert.ok(!existsSync(record));
  });

  test('stays as somebody else has set it before, or sets it meanwhile', async () => {
    for (const value of ['1', '0']) {
      writeFileSync(path, '1\n');
      await withNonlocalBind(() => Promise.resolve(writeFileSync(path, value)), [path], record);
      assert.equal(read(), value);
      writeFileSync(path, '0\n');
      await withNonlocalBind(() => Promise.resolve(writeFileSync(path, value)), [path], record);
      assert.equal(read(), value);
    }
  });

  test('stays as it is without a record, even with the value that is set here', async () => {
    writeFileSync(path, '2\n');
    assert.deepEqual(endNonlocalBind(record), []);
    await withNonlocalBind(() => Promise.resolve(), [path], record);
    assert.equal(read(), '2');
  });

  test('is not allowed where that cannot be recorded', async () => {
    writeFileSync(path, '0\n');
    const none = join(path, 'record');
    assert.equal(await withNonlocalBind(() => Promise.resolve(read()), [path], none), '0');
  });

  test('is taken back by whoever comes next, if the program was ended', () => {
    for (const [value, then] of [
      ['2', '0'],
      ['1', '1'],
    ] as const) {
      writeFileSync(record, `${path}\n${missing}\n`);
      writeFileSync(path, `${value}\n`);
      assert.deepEqual(endNonlocalBind(record), []);
      assert.equal(read(), then);
      assert.ok(!existsSync(record));
    }
  });

  test('is named if it cannot be taken back', () => {
    const odd = join(directory, 'odd');
    mkdirSync(odd);
    writeFileSync(record, `${odd}\n`);
    assert.match(endNonlocalBind(record)[0] ?? '', /odd cannot be put back to 0: EISDIR/);
    assert.ok(existsSync(record));
  });
});
