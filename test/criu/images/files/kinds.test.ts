import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { fileKinds } from '../../../../src/criu/images/files/kinds.ts';
import { FdTypes } from '../../../../src/criu/images/proto/gen/files_pb.ts';

suite('kinds of open files', () => {
  test('have each a type of CRIU to itself', () => {
    // CRIU does not know the last one: it is told of a file.
    const { 'io-uring': unknown, ...kinds } = fileKinds;
    assert.equal(unknown.fileType, kinds.path.fileType);
    const numbers = Object.values(kinds).map(({ fileType }) => fileType);
    assert.equal(new Set(numbers).size, numbers.length);
    assert.ok(!numbers.includes(FdTypes.UND));
  });
});
