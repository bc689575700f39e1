import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkBoundName } from '../../../../../src/capture/files/sockets/unix/unix-file.ts';

test('a socket is bound by CRIU where its file is, and refused if that is somewhere else', () => {
  assert.equal(checkBoundName('/run/web/s', '/run/web/s', true), undefined);
  assert.equal(checkBoundName('web/s', '/run/web/s', true), undefined);
  // By a link, which is there again, or a directory that has another name by now: the restore looks.
  for (const name of ['/var/run/web/s', '/run/old/s'])
    assert.equal(checkBoundName(name, '/run/web/s', true), '/run/web/s');
  assert.throws(
    () => checkBoundName('../web/s', '/run/web/s', true),
    /named \.\.\/web\/s, whose directory is not known/,
  );
});

test('a socket that keeps no file need not have the name of one', () => {
  for (const name of ['/run/web/s.part', '/run/old/s'])
    assert.equal(checkBoundName(name, '/run/web/s', false), undefined);
});
