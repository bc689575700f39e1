import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fileKinds } from '../../../../src/criu/images/files/kinds.ts';
import { FdTypes } from '../../../../src/criu/images/proto/gen/files_pb.ts';

suite('kinds of open files', () => {
  test('have each a type of CRIU to itself', () => {
    const numbers = Object.values(fileKinds).map(({ fileType }) => fileType);
    assert.equal(new Set(numbers).size, numbers.length);
    assert.ok(!numbers.includes(FdTypes.UND));
  });
});
