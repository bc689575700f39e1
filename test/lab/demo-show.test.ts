import assert from 'node:assert/strict';
import { test } from 'node:test';
import { frame } from '../../lab/demo/show.ts';

test('a frame shows all of a long line, and keeps its sides straight', () => {
  const words = Array.from({ length: 40 }, (_, i) => `word${i}`).join(' ');
  const path = `/${'x'.repeat(300)}`;
  const lines = frame('the end', `short\n${words}\n${path}\n\n`).split('\n');
  assert.equal(new Set(lines.map((line) => [...line].length)).size, 1, lines.join('\n'));
  assert.ok([...(lines[0] ?? '')].length <= 120);
  const inside = lines.slice(1, -1).map((line) => line.slice(2, -2).trimEnd());
  assert.equal(inside[0], 'short');
  const shown = inside.slice(1).join(' ');
  assert.ok(shown.startsWith(`${words} /xxx`), shown);
  assert.equal(inside.join('').replaceAll(/[^x]/g, '').length, 300);
});
