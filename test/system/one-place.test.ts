// What src/system has is not written again elsewhere.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite, test } from 'node:test';

const root = join(import.meta.dirname, '../..');
/** What applications include, examples and measurements stand on their own. */
const sources = globSync('{src,lab,test}/**/*.ts', { cwd: root }).filter(
  (path) => !path.startsWith('test/sdk/'),
);

/** `FILE: LINE` of every line of some files that looks so. */
function linesLike(pattern: RegExp, files: readonly string[]): string[] {
  return files.flatMap((file) =>
    readFileSync(join(root, file), 'utf8')
      .split('\n')
      .filter((line) => pattern.test(line))
      .map((line) => `${file}: ${line.trim()}`),
  );
}

function without(...paths: readonly string[]): string[] {
  return sources.filter((path) => !paths.includes(path));
}

suite('the running system and its ABI', () => {
  test('all sources are looked at', () => {
    for (const part of ['src/system/', 'src/vmcore/', 'lab/', 'test/'])
      assert.ok(sources.filter((path) => path.startsWith(part)).length > 5, part);
  });

  test('libc is loaded in src/system alone, and koffi by nobody else', () => {
    const loading = /from 'koffi'|(?:import|require|\))\('koffi'\)|load\('libc/;
    assert.deepEqual(linesLike(loading, without('src/system/libc.ts', 'test/system/one-place.test.ts')), []);
    assert.equal(linesLike(/load\('libc/, ['src/system/libc.ts']).length, 1);
  });

  test('the size of a page is said once', () => {
    const size = /const (?:PAGE|page)\w* = (?:4096|4_096|0x1000|1 << 12|2 \*\* 12)n?;/;
    assert.deepEqual(linesLike(size, without('src/system/page.ts')), []);
    assert.equal(linesLike(size, ['src/system/page.ts']).length, 1);
  });

  test('numbers of the ABI are said once', () => {
    const file = 'src/system/abi.ts';
    const exported = readFileSync(join(root, file), 'utf8').matchAll(/^export const (\w+) = /gm);
    const names = Array.from(exported, ([, name]) => name);
    assert.ok(names.includes('PATH_MAX'));
    assert.deepEqual(linesLike(new RegExp(`const (?:${names.join('|')}) = `), without(file)), []);
  });

  test('src/system knows nothing of other parts', () => {
    const others = sources.filter((path) => path.startsWith('src/system/'));
    assert.deepEqual(linesLike(/ from '\.\.\//, others), []);
  });
});
