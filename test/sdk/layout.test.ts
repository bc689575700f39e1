import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { recordHeaderBytes, recordLayout, recordSizeBytes } from '../../src/model/crash-procedure.ts';
import { itemCapacity } from '../../src/model/procedure-incident.ts';
import { build } from './build.ts';

test('the C header and the parser agree about the layout of the record', () => {
  const layout = JSON.parse(execFileSync(build('layout.c', ['-std=c99']), { encoding: 'utf8' }));
  const { record, registered, valid, gone, lost, may, item, ...offsets } = layout;
  assert.deepEqual(
    { registered, valid, gone, lost, may },
    { registered: 0, valid: 1, gone: 1, lost: 0, may: 1 },
  );
  assert.equal(record, recordSizeBytes);
  assert.equal(offsets.crc + 4, recordHeaderBytes);
  assert.equal((record - offsets.items) / item, itemCapacity);
  assert.deepEqual(recordLayout, offsets);
});

for (const standard of ['c99', 'c11', 'gnu17']) {
  test(`the header compiles as ${standard} without a warning`, () => {
    build('layout.c', [`-std=${standard}`]);
  });
}

for (const standard of ['c++11', 'c++17', 'c++20']) {
  test(`the header compiles as ${standard} without a warning, and works`, () => {
    const layout = JSON.parse(
      execFileSync(build('layout.c', [`-std=${standard}`], 'g++'), { encoding: 'utf8' }),
    );
    assert.equal(layout.valid, 1);
  });
}
