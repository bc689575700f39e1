import type { PhysicalRun } from './open-file.ts';

/** A System V message queue, as msgget(2), msgctl(2) and msgsnd(2) make it. */
export interface MessageQueue {
  /** What msgget(2) returned. */
  readonly id: number;
  /** As an unsigned number; IPC_PRIVATE (0) of one that has none. */
  readonly key: number;
  readonly uid: number;
  readonly gid: number;
  /** User and group of its maker. */
  readonly cuid: number;
  readonly cgid: number;
  /** Permission bits. */
  readonly mode: number;
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
