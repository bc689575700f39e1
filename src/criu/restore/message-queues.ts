import { closeSync, existsSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { checked } from '../../system/libc.ts';
import {
  IPC_CREAT_EXCL,
  IPC_NOWAIT,
  IPC_PRIVATE,
  IPC_RMID,
  IPC_SET,
  IPC_STAT,
  MSQID_DS,
  msgctl,
  msgget,
  msgsnd,
} from '../../system/sysv-ipc.ts';
import { messageOf } from '../../system/thrown.ts';
import {
  MESSAGE_QUEUES,
  MESSAGES,
  type MessageQueuePlan,
  messageQueuesSchema,
} from '../images/plan/message-queues.ts';
import { makeIpc, permissionDifferences, setPermissions } from './ipc-object.ts';
import { openImage, readImageText } from './open-image.ts';
import type { GroupResource } from './resource.ts';

/** Longest message that may be sent. */
const LONGEST = '/proc/sys/kernel/msgmax';
const TYPE_BYTES = 8;

function remove(id: number): void {
  msgctl(id, IPC_RMID, null);
}

function stat(id: number): Buffer {
  const ds = Buffer.alloc(MSQID_DS.bytes);
  checked('msgctl', msgctl(id, IPC_STAT, ds));
  return ds;
}

function setUp(plan: MessageQueuePlan, limitBytes: number): void {
  const ds = stat(plan.id);
  setPermissions(plan, MSQID_DS, ds);
  ds.writeBigUInt64LE(BigInt(limitBytes), MSQID_DS.limitBytes);
  checked('msgctl', msgctl(plan.id, IPC_SET, ds));
}

function readText(fd: number, message: Buffer, bytes: number, offset: number): void {
  for (let done = 0; done < bytes; ) {
    const got = readSync(fd, message, TYPE_BYTES + done, bytes - done, offset + done);
    if (got === 0) throw new Error('its messages in the images are too short');
    done += got;
  }
}

/** Its messages may be more than its limit, which can have been set afterwards, or than a new queue's. */
function makeRoom(plan: MessageQueuePlan): void {
  const bytes = plan.messages.reduce((sum, message) => sum + message.bytes, 0);
  const needed = Math.max(bytes, plan.messages.length);
  if (stat(plan.id).readBigUInt64LE(MSQID_DS.limitBytes) < needed) setUp(plan, needed);
}

function fill({ id, textOffset, messages }: MessageQueuePlan, texts: number): void {
  let at = textOffset;
  for (const { type, bytes } of messages) {
    const message = Buffer.alloc(TYPE_BYTES + bytes);
    message.writeBigInt64LE(BigInt(type));
    readText(texts, message, bytes, at);
    checked('msgsnd', msgsnd(id, message, bytes, IPC_NOWAIT));
    at += bytes;
  }
}

/** Makes a queue with its messages. Throws an Error, and leaves none, if its number or key is taken. */
function make(plan: MessageQueuePlan, texts: number): void {
  makeIpc(plan, {
    call: 'msgget',
    nextId: '/proc/sys/kernel/msg_next_id',
    make: () => msgget(plan.key | 0, IPC_CREAT_EXCL | plan.mode),
    makeAny: () => msgget(IPC_PRIVATE, 0),
    remove,
  });
  try {
    makeRoom(plan);
    fill(plan, texts);
    setUp(plan, plan.limitBytes);
  } catch (error) {
    remove(plan.id);
    throw error;
  }
}

/** Does something while messages of this length may be sent: the system's limit is not yet its own. */
function withLongest(bytes: number, step: () => void): void {
  const limit = readFileSync(LONGEST, 'latin1');
  if (bytes <= Number(limit)) {
    step();
    return;
  }
  writeFileSync(LONGEST, String(bytes));
  try {
    step();
  } finally {
    writeFileSync(LONGEST, limit);
  }
}

/** What of a queue is not as it was made. */
function madeDifferences(plan: MessageQueuePlan): string[] {
  const ds = stat(plan.id);
  const wrong = permissionDifferences(plan, MSQID_DS, ds);
  const limit = Number(ds.readBigUInt64LE(MSQID_DS.limitBytes));
  if (limit !== plan.limitBytes) wrong.push(`room for ${limit} bytes, and had ${plan.limitBytes}`);
  return wrong;
}

function differences(plan: MessageQueuePlan): string[] {
  const wrong = madeDifferences(plan);
  const count = Number(stat(plan.id).readBigUInt64LE(MSQID_DS.messages));
  if (count !== plan.messages.length) wrong.push(`${count} messages, and had ${plan.messages.length}`);
  return wrong.map((what) => `the System V message queue ${plan.id} has ${what}`);
}

function plansIn(directory: string): MessageQueuePlan[] {
  const path = join(directory, MESSAGE_QUEUES);
  return existsSync(path) ? messageQueuesSchema.parse(JSON.parse(readImageText(path))) : [];
}

/**
 * Takes away the queues that were made for a group whose processes are gone, so that it can be restored once
 * more: they outlive them. Leaves those that are no longer those that were made.
 */
export function removeLeftQueues(directory: string): void {
  for (const plan of plansIn(directory)) {
    const isThere = msgctl(plan.id, IPC_STAT, Buffer.alloc(MSQID_DS.bytes)) >= 0;
    if (isThere && madeDifferences(plan).length === 0) remove(plan.id);
  }
}

function makeAll(directory: string, plans: readonly MessageQueuePlan[]): void {
  const texts = openImage(join(directory, MESSAGES));
  const made: number[] = [];
  try {
    for (const plan of plans) {
      try {
        make(plan, texts);
      } catch (error) {
        for (const id of made) remove(id);
        throw new Error(`the System V message queue ${plan.id} cannot be made again: ${messageOf(error)}`, {
          cause: error,
        });
      }
      made.push(plan.id);
    }
  } finally {
    closeSync(texts);
  }
}

/**
 * Makes the System V message queues that a group's images name, under their numbers and keys, with their
 * messages. Throws an Error if one cannot be made, most of all because its number or key is taken; there is
 * none then.
 *
 * @returns a resource that takes the queues away if the group does not come back, and finds them right when
 * it does
 */
export function makeMessageQueues(directory: string): GroupResource {
  const plans = plansIn(directory);
  if (plans.length === 0) return { finish: () => [] };
  const longest = Math.max(...plans.flatMap(({ messages }) => messages.map(({ bytes }) => bytes)), 0);
  withLongest(longest, () => makeAll(directory, plans));
  return {
    ready: () => plans.flatMap(differences),
    finish: (isRestored) => {
      if (!isRestored) for (const { id } of plans) remove(id);
      return [];
    },
  };
}
