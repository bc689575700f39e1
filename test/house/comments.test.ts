import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
/** The formatter's width, which it does not hold comments to (biome.json). */
const WIDTH = 110;

test('lines of comments are no longer than lines of code', () => {
  const files = globSync('{src,lab,test,bench,sdk,examples}/**/*.{ts,js}', { cwd: root }).filter(
    (file) => !file.includes('/gen/') && !file.includes('node_modules'),
  );
  const long = files.flatMap((file) =>
    readFileSync(join(root, file), 'utf8')
      .split('\n')
      .flatMap((line, i) =>
        line.length > WIDTH && /^\s*(\/\/|\/\*|\*)/.test(line) ? [`${file}:${i + 1}`] : [],
      ),
  );
  assert.ok(files.length > 500);
  assert.deepEqual(long, []);
});
