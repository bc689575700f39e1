import type { IpcObject } from './ipc-object.ts';
import type { PageRuns } from './page-runs.ts';

/**
 * A System V shared memory segment, as shmget(2) and shmctl(2) make it. Pages that no run names are zeros.
 */
export interface SharedSegment extends IpcObject {
  readonly sizeBytes: number;
  /** It goes when the last process detaches it (IPC_RMID). */
  readonly isRemoved: boolean;
  /** SHM_LOCK. */
  readonly isLocked: boolean;
  /** SHM_NORESERVE. */
  readonly isNotReserved: boolean;
  /** How often the processes of the group have it attached. */
  readonly attachments: number;
  /** `address` of a run is the offset in the segment. */
  readonly runs: PageRuns;
}
