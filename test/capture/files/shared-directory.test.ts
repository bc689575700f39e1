import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { namedFile } from '../../../src/capture/files/named.ts';
import { FileRefusal } from '../../../src/capture/files/refusal.ts';
import { placeOfDeleted, refuseSharedSocket } from '../../../src/capture/files/shared-directory.ts';
import { noSandboxes } from '../../../src/capture/sandboxes.ts';
import { fdSlots } from '../../../src/linux/fdtable.ts';
import { fileAt } from '../../../src/linux/file.ts';
import { findTaskByPid } from '../../../src/linux/pid.ts';
import { taskAt } from '../../../src/linux/sched.ts';
import { HIDDEN_DIRECTORY } from '../../../src/model/sandbox.ts';
import { openFixture, releases, truthOf } from '../../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`what a process of ${release} has in a directory that everybody can write to`, () => {
    const kernel = openFixture(release);
    const { kinds } = truthOf(release);
    const { files } = taskAt(kernel, findTaskByPid(kernel, kinds.pid) ?? assert.fail());
    const open = fdSlots(kernel, files).flatMap(({ file }) => {
      try {
        const opened = fileAt(kernel, file);
        if (opened === undefined) return [];
        const { f_mnt, f_dentry } = opened;
        return [namedFile({ kernel, sandboxes: noSandboxes }, f_mnt, f_dentry)];
      } catch (error) {
        // Pipes, sockets and the like.
        if (error instanceof FileRefusal) return [];
        throw error;
      }
    });
    const file = (path: string) => open.find((one) => one.path === path) ?? assert.fail(path);
    const inside = { kernel, sandboxes: { unitOf: () => 'web.service' } };
    const outside = { kernel, sandboxes: noSandboxes };

    test('is made beside it if it was deleted, and the process is in a sandbox', () => {
      const gone = file('/tmp/gone-too');
      assert.ok(gone.deleted);
      assert.equal(placeOfDeleted(outside, gone), '/tmp/gone-too');
      const [, tmp = '', hidden = '', name = '', ...rest] = placeOfDeleted(inside, gone).split('/');
      assert.deepEqual([tmp, name, rest], ['tmp', 'gone-too', []]);
      assert.match(hidden, HIDDEN_DIRECTORY);
    });

    test('is refused there if it is a socket', () => {
      refuseSharedSocket(outside, file('/tmp/file'));
      assert.throws(
        () => refuseSharedSocket(inside, file('/tmp/file')),
        /^FileRefusal: has the unix socket \/tmp\/file, which cannot be made in its sandbox/,
      );
    });
  });
}
