import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, suite, test } from 'node:test';
import { wholeText } from '../guest/whole-text.ts';

suite('text that a program of a guest writes', () => {
  const directory = mkdtempSync(join(tmpdir(), 'whole-text-'));
  const path = join(directory, 'text');
  after(() => rmSync(directory, { recursive: true }));

  const read = () => {
    const { status, stdout } = spawnSync('sh', ['-c', wholeText(path)], { encoding: 'utf8' });
    return { isThere: status === 0, stdout };
  };

  test('is not there before its file', () => {
    assert.equal(read().isThere, false);
  });

  for (const [what, text] of [
    ['while its file is empty', ''],
    ['while its first line is being written', '41'],
    ['while another line is being written', 'ready\n41'],
  ] as const) {
    test(`is not there ${what}`, () => {
      writeFileSync(path, text);
      assert.equal(read().isThere, false);
    });
  }

  test('is there when its last line has ended', () => {
    writeFileSync(path, 'ready\n4100001\n');
    assert.deepEqual(read(), { isThere: true, stdout: 'ready\n4100001\n' });
  });
});
