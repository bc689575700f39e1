import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { openJournalSockets } from '../../../src/criu/restore/journal-socket.ts';

describe("the relay of a process's stream to the journal", () => {
  const stream = {
    inode: 7,
    nonblocking: false,
    kind: 'stream',
    identifier: 'web',
    level: 6,
    levelPrefix: true,
  } as const;

  it('is missed where it cannot be started, and nothing else fails', () => {
    for (const shell of ['/nonexistent/sh', '/bin/sh\0']) {
      const sockets = openJournalSockets([stream], { firstFd: 3, shell });
      assert.match(sockets.finish(true).join(), /^what is written to the journal as web is lost/);
      assert.deepEqual(sockets.finish(true), []);
    }
  });

  it('is not started for a group that is not let go', () => {
    assert.deepEqual(
      openJournalSockets([stream], { firstFd: 3, shell: '/nonexistent/sh' }).finish(false),
      [],
    );
  });
});
