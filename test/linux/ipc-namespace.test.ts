import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { suite, test } from 'node:test';
import { ipcObjectCount, ipcSettings } from '../../src/linux/ipc-namespace.ts';
import { posixQueues } from '../../src/linux/mqueue.ts';
import { messageQueues } from '../../src/linux/msg.ts';
import { semaphoreSets } from '../../src/linux/sem.ts';
import { shmSegments } from '../../src/linux/shm.ts';
import { openFixture, releases } from '../vmcore/fixtures.ts';

for (const release of releases) {
  suite(`the IPC namespace of ${release}`, () => {
    const kernel = openFixture(release);
    const initial = kernel.symbol('init_ipc_ns');

    test('has what a kernel sets, under the names of /proc/sys', () => {
      const settings = ipcSettings(kernel, initial);
      // Those of this machine may be others; but they are all there.
      for (const file of Object.keys(settings)) readFileSync(`/proc/sys/${file}`);
      assert.deepEqual(settings, {
        'kernel/sem': '32000 1024000000 500 32000',
        'kernel/msgmax': '8192',
        'kernel/msgmnb': '16384',
        'kernel/msgmni': '32000',
        'kernel/shmmax': '18446744073692774399',
        'kernel/shmall': '18446744073692774399',
        'kernel/shmmni': '4096',
        'kernel/shm_rmid_forced': '0',
        'fs/mqueue/queues_max': '256',
        'fs/mqueue/msg_max': '10',
        'fs/mqueue/msgsize_max': '8192',
        'fs/mqueue/msg_default': '10',
        'fs/mqueue/msgsize_default': '8192',
      });
    });

    test('has as many objects as its tables', () => {
      const tables = [semaphoreSets(kernel), messageQueues(kernel), shmSegments(kernel), posixQueues(kernel)];
      for (const { problems } of tables) assert.deepEqual(problems, []);
      const count = tables.reduce((sum, { objects }) => sum + objects.length, 0);
      assert.ok(count > 0);
      assert.equal(ipcObjectCount(kernel, initial), count);
    });
  });
}
