import assert from 'node:assert/strict';
import { test } from 'node:test';
import { keepsSenders } from '../../../../../src/capture/files/sockets/unix/unix-queue.ts';

test('messages keep their sender if all came from the name that they are sent again from', () => {
  assert.equal(keepsSenders(['/a', '/a'], ['/a']), true);
  assert.equal(keepsSenders(['/a', '/b'], ['/a', '/b']), false);
  // Which of the two is used is not known.
  assert.equal(keepsSenders(['/a'], ['/a', '/b']), false);
  assert.equal(keepsSenders(['', ''], ['', '']), true);
});

test('messages to a socket that nobody is connected to come from a new one, which has no name', () => {
  assert.equal(keepsSenders([''], []), true);
  assert.equal(keepsSenders(['/a'], []), false);
});
