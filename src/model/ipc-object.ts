/** What every System V object has (`struct ipc_perm` of ipc(5)). */
export interface IpcObject {
  /** What shmget(2), semget(2) or msgget(2) returned. */
  readonly id: number;
  /** As an unsigned number; IPC_PRIVATE (0) of one that has none, or of a segment that was removed. */
  readonly key: number;
  readonly uid: number;
  readonly gid: number;
  /** User and group of its maker. */
  readonly cuid: number;
  readonly cgid: number;
  /** Permission bits. */
  readonly mode: number;
}
