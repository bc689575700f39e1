import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutMountReason } from '../../../src/capture/files/named.ts';
import { FileRefusal } from '../../../src/capture/files/refusal.ts';
import { RefusedDescriptors } from '../../../src/capture/files/table.ts';

/** A file at an address that cannot be brought back. */
function refusal(reason: string, file: bigint): FileRefusal {
  const error = new FileRefusal(reason);
  error.file = file;
  return error;
}

test('the descriptor in a reason is that of the file itself, not of an epoll that watches it', () => {
  const socket = refusal('has an established TCP connection to 10.0.2.2:80', 0x7000n);
  const refused = new RefusedDescriptors();
  refused.add(socket, { fd: 4, file: 0x4000n });
  refused.add(socket, { fd: 7, file: 0x7000n });
  refused.add(socket, { fd: 9, file: 0x7000n });
  assert.deepEqual(refused.sentences(), ['has an established TCP connection to 10.0.2.2:80 (fd 7)']);
});

test('a file that a process only watches is said to be watched', () => {
  const refused = new RefusedDescriptors();
  refused.add(refusal('has an open io_uring', 0x7000n), { fd: 4, file: 0x4000n });
  refused.add(new FileRefusal('has fd 5 in the table but not in the bitmap'), { fd: 5, file: 0x5000n });
  assert.deepEqual(refused.sentences(), [
    'has an open io_uring (watched by fd 4)',
    'has fd 5 in the table but not in the bitmap (fd 5)',
  ]);
});

test('what is on a mount that nobody sees is called what it is', () => {
  assert.equal(
    withoutMountReason('mqueue', 'jobs', '/jobs', 'detached'),
    'has the POSIX message queue /jobs open',
  );
  assert.equal(
    withoutMountReason('secretmem', 'secretmem', '/', 'internal'),
    'has secret memory (memfd_secret)',
  );
  assert.match(withoutMountReason('ext4', 'x', '/x', 'detached'), /^has \/x open on a ext4 .* no longer/);
  assert.equal(
    withoutMountReason('anon_inodefs', '[x]', '/', 'internal'),
    "has [x] of the kernel's own anon_inodefs file system open",
  );
});
