import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const docs = join(import.meta.dirname, '../../docs');
const rows = readFileSync(join(docs, 'what-survives.md'), 'utf8')
  .split('\n')
  .filter((line) => /^\| (?!kind \||---)/.test(line));

test('every row of what survives names a test that is there', () => {
  assert.ok(rows.length > 20);
  for (const row of rows) {
    const cells = row.split(' | ');
    assert.equal(cells.length, 4, row);
    const [, name, path] = /\[([^\]]+)\]\(([^)]+)\) \|$/.exec(cells.at(-1) ?? '') ?? [];
    assert.ok(name !== undefined && path !== undefined, row);
    const text = readFileSync(join(docs, path), 'utf8');
    // The beginning of a test's name, as it stands in the file.
    assert.match(text, new RegExp(`test\\(\\s*['"\`]${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}`), row);
  }
});
