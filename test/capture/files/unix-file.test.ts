import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkBoundName } from '../../../src/capture/files/unix-file.ts';

test('a socket is bound by CRIU where its file is, and refused if that is somewhere else', () => {
  checkBoundName('/run/web/s', '/run/web/s');
  // By a link, which is there again.
  checkBoundName('/var/run/web/s', '/run/web/s');
  checkBoundName('web/s', '/run/web/s');
  assert.throws(
    () => checkBoundName('/run/web/s.part', '/run/web/s'),
    /^FileRefusal: has the unix socket \/run\/web\/s, whose file was renamed: it was bound as \/run\/web\/s\.part$/,
  );
  assert.throws(
    () => checkBoundName('../web/s', '/run/web/s'),
    /named \.\.\/web\/s, whose directory is not known/,
  );
});
