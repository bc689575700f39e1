import type { IpcObject } from './ipc-object.ts';

/** A set of System V semaphores, as semget(2), semctl(2) and semop(2) make it. */
export interface SemaphoreSet extends IpcObject {
  readonly semaphores: readonly Semaphore[];
  /** There was a semop(2) on it (sem_otime): programs look whether somebody has set it up. */
  readonly isUsed: boolean;
  readonly undos: readonly SemaphoreUndo[];
}

export interface Semaphore {
  readonly value: number;
  /** The protected process that changed it last; undefined if nobody did, or another one. */
  readonly lastPid: number | undefined;
}

/** What is added to a semaphore when a process ends (SEM_UNDO): never 0. */
export interface SemaphoreUndo {
  readonly pid: number;
  /** Its place in the set. */
  readonly semaphore: number;
  readonly adjustment: number;
}
