import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ImageDirectory, type PageSource } from '../../../src/criu/images/image.ts';
import { writeMessageQueues } from '../../../src/criu/images/message-queues.ts';
import {
  longestOf,
  makeMessageQueues,
  removeLeftQueues,
  usedQueues,
} from '../../../src/criu/restore/message-queues.ts';
import type { GroupResource } from '../../../src/criu/restore/resource.ts';
import { removeLeft } from '../../../src/criu/restore/resources.ts';
import type { MessageQueue } from '../../../src/model/message-queue.ts';
import { IPC_NOWAIT, IPC_RMID, MSQID_DS, msgctl, msgget, msgrcv } from '../../../src/system/sysv-ipc.ts';

const canMake = process.getuid?.() === 0 && existsSync('/proc/sys/kernel/msg_next_id');
const needsRoot = { skip: canMake ? false : 'only root may make queues under numbers of its choice' };

function seesThreads(): boolean {
  try {
    readFileSync('/proc/1/syscall');
    return true;
  } catch {
    return false;
  }
}
const needsInsight = { skip: seesThreads() ? false : 'not all processes show the calls they are in' };

/** Numbers and places that a system gives only after very many queues, others in each process of tests. */
const ID = 32768 * (20_000 + (process.pid % 10_000)) + 30_000 + 3 * (process.pid % 900);
const KEY = 0xcf59_0000 + (process.pid % 0x1_0000);
const IPC_STAT = 2;
const LONGEST = '/proc/sys/kernel/msgmax';

/** Old memory in which each byte tells where it is. */
function oldMemory(physical: number, length: number): Buffer {
  return Buffer.from(Array.from({ length }, (_, i) => ((physical + i) * 31) & 0xff));
}
const source: PageSource = {
  writeRuns: (fd, runs) =>
    runs.reduce((sum, { physical, length }) => sum + writeSync(fd, oldMemory(physical, length)), 0),
};

function message(type: bigint, ...text: { physical: number; length: number }[]) {
  return { type, bytes: text.reduce((sum, { length }) => sum + length, 0), text };
}

const queue: MessageQueue = {
  ...{ id: ID, key: KEY, uid: 1003, gid: 1004, cuid: 1001, cgid: 1002, mode: 0o640, limitBytes: 5000 },
  messages: [
    message(7n, { physical: 0x1030, length: 100 }),
    message((1n << 63n) - 1n, { physical: 0x2030, length: 4048 }, { physical: 0x3008, length: 900 }),
    message(1n),
  ],
};

function stateOf(
  id: number,
): Record<'mode' | 'uid' | 'gid' | 'cuid' | 'cgid' | 'key' | 'messages' | 'limitBytes', number> | undefined {
  const ds = Buffer.alloc(MSQID_DS.bytes);
  if (msgctl(id, IPC_STAT, ds) < 0) return undefined;
  const at = (name: 'mode' | 'uid' | 'gid' | 'cuid' | 'cgid' | 'key') => ds.readUInt32LE(MSQID_DS[name]);
  return {
    ...{
      mode: at('mode'),
      uid: at('uid'),
      gid: at('gid'),
      cuid: at('cuid'),
      cgid: at('cgid'),
      key: at('key'),
    },
    messages: Number(ds.readBigUInt64LE(MSQID_DS.messages)),
    limitBytes: Number(ds.readBigUInt64LE(MSQID_DS.limitBytes)),
  };
}

/** Takes the first message of a queue. */
function receive(id: number): { type: bigint; text: Buffer } {
  const buffer = Buffer.alloc(20_000);
  const bytes = msgrcv(id, buffer, buffer.length - 8, 0, IPC_NOWAIT);
  assert.ok(bytes >= 0, `msgrcv ${bytes}`);
  return { type: buffer.readBigInt64LE(), text: buffer.subarray(8, 8 + bytes) };
}

describe('messages of System V', () => {
  it('may be very many', () => {
    const messages = Array.from({ length: 200_000 }, (_, i) => ({ type: '1', bytes: i % 10 }));
    assert.equal(longestOf([{ messages }, { messages: [] }, { messages: [{ type: '1', bytes: 11 }] }]), 11);
    assert.equal(longestOf([]), 0);
  });
});

describe('System V message queues of a group', needsRoot, () => {
  const directories: string[] = [];
  const resources: GroupResource[] = [];
  const write = (...messageQueues: MessageQueue[]): string => {
    const directory = mkdtempSync(join(tmpdir(), 'otherworld-queues-'));
    directories.push(directory);
    writeMessageQueues({ messageQueues }, new ImageDirectory(directory), source);
    return directory;
  };
  const make = (...queues: MessageQueue[]): GroupResource => {
    const made = makeMessageQueues(write(...queues));
    resources.push(made);
    return made;
  };
  afterEach(() => {
    for (const made of resources.splice(0)) made.finish(false);
    for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
    assert.deepEqual([stateOf(ID), stateOf(ID + 1)], [undefined, undefined]);
  });

  it('are made under their numbers and keys, with owner, maker, mode and messages in their order', () => {
    const limit = readFileSync(LONGEST, 'latin1');
    const long = message(3n, { physical: 0x1_0000, length: Number(limit) + 100 });
    const made = make({ ...queue, id: ID + 1, key: 0, messages: [long] }, queue);
    assert.equal(readFileSync(LONGEST, 'latin1'), limit);
    assert.deepEqual(stateOf(ID), {
      ...{ mode: 0o640, uid: 1003, gid: 1004, cuid: 1001, cgid: 1002, key: KEY },
      // There may be more in it than its limit.
      ...{ messages: 3, limitBytes: 5000 },
    });
    assert.deepEqual(made.ready?.(), []);
    const expected = queue.messages.map(({ type, text }) => ({
      type,
      text: Buffer.concat(text.map(({ physical, length }) => oldMemory(physical, length))),
    }));
    assert.deepEqual([receive(ID), receive(ID), receive(ID)], expected);
    assert.equal(receive(ID + 1).text.length, Number(limit) + 100);
    assert.deepEqual(made.ready?.(), [
      `the System V message queue ${ID + 1} has 0 messages, and had 1`,
      `the System V message queue ${ID} has 0 messages, and had 3`,
    ]);
    made.finish(true);
    assert.ok(stateOf(ID) !== undefined);
  });

  it('are not made where a key or a number is taken, and none of the others either', () => {
    const taken = msgget((KEY + 1) | 0, 0o3600);
    const other = { ...queue, id: ID + 1, key: KEY + 1 };
    const expected = `queue ${ID + 1} cannot be made again: its key 0x${(KEY + 1).toString(16)} is taken`;
    assert.throws(() => make(queue, other), new RegExp(expected));
    assert.equal(stateOf(ID), undefined);
    msgctl(taken, IPC_RMID, null);
    make(queue);
    assert.throws(() => make({ ...queue, key: KEY + 1 }), /cannot be made again: its number is taken/);
    assert.equal(stateOf(ID)?.messages, 3);
  });

  it('are not made of images that are cut off', () => {
    const directory = write(queue);
    truncateSync(join(directory, 'messages.raw'), 4200);
    assert.throws(() => makeMessageQueues(directory), /its messages in the images are too short/);
  });

  it(
    'are taken away before the group is made once more, if they are those that were made',
    needsInsight,
    () => {
      const directory = write(queue);
      makeMessageQueues(directory).finish(true);
      assert.deepEqual(usedQueues(directory), []);
      removeLeft(directory);
      assert.equal(stateOf(ID), undefined);
      makeMessageQueues(directory).finish(false);
    },
  );

  it('are left to whoever has used them since, and the group is not made once more', () => {
    const directory = write(queue);
    makeMessageQueues(directory).finish(true);
    receive(ID);
    const used = `the System V message queue ${ID} has been used since`;
    assert.deepEqual(usedQueues(directory), [used]);
    assert.throws(() => removeLeft(directory), { message: `it is not restored again: ${used}` });
    assert.equal(stateOf(ID)?.messages, 2);
    removeLeftQueues(directory);
  });

  it('are left to whoever waits for a message', { ...needsInsight, timeout: 60_000 }, async () => {
    const directory = write({ ...queue, messages: [] });
    makeMessageQueues(directory).finish(true);
    assert.deepEqual(usedQueues(directory), []);
    const module = new URL('../../../src/system/sysv-ipc.ts', import.meta.url).href;
    const program = `const { msgrcv } = await import('${module}'); msgrcv(${ID}, Buffer.alloc(16), 8, 0, 0);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'ignore' });
    try {
      while (usedQueues(directory).length === 0) {
        assert.equal(child.exitCode, null);
        await sleep(20);
      }
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    assert.deepEqual(usedQueues(directory), []);
    removeLeftQueues(directory);
  });

  it('are nothing for a group without any', () => {
    const made = makeMessageQueues(write());
    assert.deepEqual([made.ready?.() ?? [], made.finish(true)], [[], []]);
  });
});
