import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ipcFindings, ipcLosses } from '../../../src/capture/ipc/ipc.ts';
import type { IpcKind, IpcObject } from '../../../src/linux/ipc.ts';

const [MAKER, OTHER] = [0xffff_8880_0000_1000n, 0xffff_8880_0000_2000n];

function object(kind: IpcKind, name: string, users: readonly bigint[] = [], uid = 1000): IpcObject {
  return { kind, name, uids: [uid, uid], users };
}

const whole = (...objects: IpcObject[]) => ({ objects, problems: [] });
const segment = object('System V shared memory segment', '7', [MAKER]);

describe('what outlives its users and went with the kernel', () => {
  it('refuses who made it or used it last, attached or not', () => {
    assert.deepEqual(ipcFindings(whole(segment), MAKER, 1000), {
      reasons: ['uses the System V shared memory segment 7, which went with the kernel'],
      notes: [],
    });
  });

  it('is told to others of the same user, and to nobody else', () => {
    assert.deepEqual(ipcFindings(whole(segment), OTHER, 1000), {
      reasons: [],
      notes: ['the System V shared memory segment 7 of its user went with the kernel'],
    });
    assert.deepEqual(ipcFindings(whole(segment), OTHER, 1001), { reasons: [], notes: [] });
    const madeForAnother = { ...segment, uids: [0, 1001] };
    assert.equal(ipcFindings(whole(madeForAnother), OTHER, 1001).notes.length, 1);
  });

  it('is one sentence for each kind, however many there are', () => {
    const sets = Array.from({ length: 10 }, (_, i) => object('System V semaphore set', `${i}`, [MAKER]));
    const queue = object('System V message queue', '3', [MAKER]);
    assert.deepEqual(ipcFindings(whole(...sets, queue), MAKER, 1000).reasons, [
      'uses 10 System V semaphore sets (0, 1, 2, 3, 4, 5, 6, 7 and 2 more), which went with the kernel',
      'uses the System V message queue 3, which went with the kernel',
    ]);
  });

  it('is said of the whole system by user, without a process that has to come back for it', () => {
    const posix = object('POSIX message queue', '/jobs', [], 33);
    assert.deepEqual(ipcLosses(whole(segment, posix)), [
      'the POSIX message queue /jobs of user 33 went with the kernel',
      'the System V shared memory segment 7 of user 1000 went with the kernel',
    ]);
  });

  it('is not known if the kernel’s table cannot be read, and that is said', () => {
    const problems = ['System V semaphores cannot be read: xarray at 0x1 is damaged'];
    assert.match(ipcFindings({ objects: [], problems }, OTHER, 0).notes.join(), /is not known: System V sem/);
    assert.deepEqual(ipcLosses({ objects: [], problems }), problems);
  });
});
