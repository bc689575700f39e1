import type { RestorePlan } from '../images/plan/restore-plan.ts';
import type { Freezer } from './held-process.ts';
import type { Where } from './own-make/open-directory.ts';

/** First descriptor that `criu` gets besides the standard ones. */
export const FIRST_FD = 3;

/** What a group needs that is made before `criu restore` and lives on with its processes. */
export interface GroupResource {
  /** Descriptors for CRIU, from `firstFd` on, and options that say what they are. */
  readonly fds?: readonly number[];
  readonly options?: readonly string[];
  /**
   * Called when CRIU runs, before it makes anything: what must not be there while it finds out what the
   * kernel can do. What it throws ends the restore.
   */
  begin?(): void;
  /**
   * Called when the processes are there and frozen, as they are afterwards: has them do what only they can
   * do. Throws an Error if that is not possible; the group is ended then.
   */
  held?(freezer: Freezer): Promise<void>;
  /**
   * Called when the processes are there and do not run yet: the last that is to be done. Returns what is not
   * as it has to be, one end of a sentence for each; with any, the group is ended.
   */
  ready?(): readonly string[];
  /**
   * Leaves it to the processes, or, if they do not come back, takes it away; once. Returns a sentence for
   * each thing that is lost.
   */
  finish(isRestored: boolean): readonly string[];
}

/** The group that is to be restored. */
export interface GroupToRestore {
  /** Of its images. */
  readonly directory: string;
  readonly plan: RestorePlan;
  /** Directory of the cgroup in which CRIU makes everything. */
  readonly cgroup: string;
  /** The first descriptor that CRIU does not have yet. */
  readonly firstFd: number;
  /** Where the group is restored; where this program is if not given. */
  readonly inside?: Where | undefined;
  /** The unit that writes to the journal, if the system has booted and the journal is there. */
  readonly unit?: string | undefined;
}

/** Makes a resource. Throws an Error, and leaves nothing, if that is not possible. */
export type MakeResource = (group: GroupToRestore) => GroupResource;
