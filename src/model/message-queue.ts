import type { IpcObject } from './ipc-object.ts';
import type { PhysicalRun } from './open-file.ts';

/** A System V message queue, as msgget(2), msgctl(2) and msgsnd(2) make it. */
export interface MessageQueue extends IpcObject {
  /** How many bytes may be in it. */
  readonly limitBytes: number;
  /** In their order. */
  readonly messages: readonly Message[];
}

export interface Message {
  /** At least 1. */
  readonly type: bigint;
  readonly bytes: number;
  readonly text: readonly PhysicalRun[];
}
