import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type KeyPath, parseToml, type TextPosition } from '../../src/config/toml.ts';

/** `3:7`; or nothing. */
function shown(position: TextPosition | undefined): string | undefined {
  return position && `${position.line}:${position.column}`;
}

/** What a text says, as JSON has it. */
function plain(text: string): unknown {
  return JSON.parse(JSON.stringify(parseToml(text).value));
}

test('keys and values are found in tables, as dotted keys, quoted and in inline tables', () => {
  const text = 'a.b = 1\n[c]\nd = 2\n"e f" = 3\n[c.g]\nh = { i = [4, "j"], k.l = 5 }\n';
  const { keyAt, valueAt, value } = bound(text);
  assert.deepEqual(JSON.parse(JSON.stringify(value)), {
    a: { b: 1 },
    c: { d: 2, 'e f': 3, g: { h: { i: [4, 'j'], k: { l: 5 } } } },
  });
  assert.deepEqual([keyAt(['a', 'b']), valueAt(['a', 'b'])], ['1:3', '1:7']);
  assert.deepEqual([keyAt(['a']), valueAt(['a'])], ['1:1', '1:1']);
  assert.deepEqual([keyAt(['c']), valueAt(['c'])], ['2:2', '2:2']);
  assert.deepEqual([keyAt(['c', 'd']), valueAt(['c', 'd'])], ['3:1', '3:5']);
  assert.equal(valueAt(['c', 'e f']), '4:9');
  assert.equal(keyAt(['c', 'g']), '5:2');
  assert.equal(valueAt(['c', 'g', 'h']), '6:5');
  assert.equal(valueAt(['c', 'g', 'h', 'i', 1]), '6:15');
  assert.equal(keyAt(['c', 'g', 'h', 'k', 'l']), '6:23');
});

test('what is not there has the place of what is around it', () => {
  const { keyAt, valueAt } = bound('[c]\nd = 2\n');
  assert.equal(valueAt(['c', 'missing', 0]), '1:2');
  assert.equal(keyAt(['c', 'd', 'below']), '2:1');
  assert.equal(keyAt(['nowhere']), undefined);
});

test('each element of an array of tables has its own place', () => {
  const text = '[[p]]\nx = 1\n\n[[p]]\nx = 2\n[p.q]\nr = true\n[[p.s]]\nt = 1\n';
  assert.deepEqual(plain(text), { p: [{ x: 1 }, { x: 2, q: { r: true }, s: [{ t: 1 }] }] });
  const { keyAt, valueAt } = bound(text);
  assert.equal(keyAt(['p']), '1:3');
  assert.equal(valueAt(['p', 0, 'x']), '2:5');
  assert.equal(keyAt(['p', 1]), '4:3');
  assert.equal(valueAt(['p', 1, 'x']), '5:5');
  assert.equal(valueAt(['p', 1, 'q', 'r']), '7:5');
  assert.equal(valueAt(['p', 1, 's', 0, 't']), '9:5');
});

test('every key is one of the text', () => {
  const { value } = parseToml('__proto__.x = 1\nconstructor = 2\n');
  assert.deepEqual(Object.keys(value), ['__proto__', 'constructor']);
});

test('a byte order mark and the line ends of other systems are no errors', () => {
  assert.deepEqual(plain('\uFEFFa = 1\r\nb = 2\r\n'), { a: 1, b: 2 });
});

function bound(text: string) {
  const document = parseToml(text);
  return {
    value: document.value,
    keyAt: (path: KeyPath) => shown(document.keyAt(path)),
    valueAt: (path: KeyPath) => shown(document.valueAt(path)),
  };
}
