import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { raiseAioLimit } from './aio-limit.ts';
import { prepareConnections } from './connections.ts';
import type { Freezer } from './held-process.ts';
import { connectJournalSockets } from './journal-connection.ts';
import { openJournalSockets } from './journal-socket.ts';
import { makeMessageQueues, removeLeftQueues, usedQueues } from './message-queues.ts';
import { makeDeletedFiles } from './own-make/deleted-files.ts';
import { bindLate } from './own-make/late-names.ts';
import { FIRST_FD, type GroupResource, type GroupToRestore, type MakeResource } from './resource.ts';
import { makeSegments, removeLeftSegments } from './segments.ts';
import { makeSemaphores, removeLeftSemaphores, usedSemaphores } from './semaphores.ts';

/**
 * Everything that is made for a group before it is restored. A further kind is a file of its own, and a line
 * here.
 */
const makers: readonly MakeResource[] = [
  ({ plan, firstFd, unit }) =>
    unit === undefined
      ? openJournalSockets(plan.journalSockets, { firstFd })
      : connectJournalSockets(plan.journalSockets, firstFd, unit),
  ({ directory }) => makeSegments(directory),
  ({ directory }) => makeSemaphores(directory),
  ({ directory }) => makeMessageQueues(directory),
  ({ plan }) => raiseAioLimit(plan.aioRequests),
  prepareConnections,
  ({ directory, firstFd, inside }) => makeDeletedFiles(directory, { firstFd, inside }),
  ({ plan, inside }) => bindLate(plan.lateNames, inside?.remade ?? new Set()),
];

/**
 * Takes away what was made for a group and outlives its processes, which are gone, so that it can be restored
 * once more. Throws an Error, and leaves all of it, if others have used some of it since: they would lose
 * what they have done.
 */
export function removeLeft(directory: string): void {
  const used = [...usedSemaphores(directory), ...usedQueues(directory)];
  if (used.length > 0) throw new Error(`it is not restored again: ${used.join('; ')}`);
  removeLeftSegments(directory);
  removeLeftSemaphores(directory);
  removeLeftQueues(directory);
}

/** All resources of a group. */
export class GroupResources {
  readonly fds: readonly number[];
  readonly options: readonly string[];
  #made: readonly GroupResource[];

  /** Makes them. Throws what one of them throws, after those that were made are gone again. */
  constructor(
    directory: string,
    plan: RestorePlan,
    cgroup: string,
    { unit, inside }: Pick<GroupToRestore, 'unit' | 'inside'> = {},
  ) {
    const made: GroupResource[] = [];
    const fds: number[] = [];
    try {
      for (const make of makers) {
        const resource = make({ directory, plan, cgroup, firstFd: FIRST_FD + fds.length, unit, inside });
        made.push(resource);
        fds.push(...(resource.fds ?? []));
      }
    } catch (error) {
      for (const resource of made) resource.finish(false);
      throw error;
    }
    this.#made = made;
    this.fds = fds;
    this.options = made.flatMap(({ options = [] }) => options);
  }

  /** See `GroupResource`. */
  begin(): void {
    for (const resource of this.#made) resource.begin?.();
  }

  /** See `GroupResource`. */
  async held(freezer: Freezer): Promise<void> {
    for (const resource of this.#made) await resource.held?.(freezer);
  }

  /** See `GroupResource`. */
  ready(): string[] {
    return this.#made.flatMap((resource) => resource.ready?.() ?? []);
  }

  /** See `GroupResource`; does nothing the second time. */
  finish(isRestored: boolean): string[] {
    const made = this.#made;
    this.#made = [];
    return made.flatMap((resource) => resource.finish(isRestored));
  }
}
