import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { withNonlocalBind } from '../../system/nonlocal-bind.ts';
import { processStat } from '../../system/proc.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { breakConnections } from './broken-connections.ts';
import { restoreSignals } from './held-signals.ts';
import { restoreRings } from './io-uring.ts';
import { applyLateSettings } from './late-settings.ts';
import { restoreMdwe } from './mdwe.ts';
import { restoreMemoryKeys } from './memory-keys.ts';
import { restoreMemoryLocks } from './memory-locks.ts';
import { RESTORE_LOG } from './names.ts';
import { setPressureTriggers } from './pressure-triggers.ts';
import { readRestorePlan } from './read-plan.ts';
import { resetConnections } from './reset-connections.ts';
import { GroupResources } from './resources.ts';
import { RestoreCgroup } from './restore-cgroup.ts';
import { readErrors, reasonOf } from './restore-log.ts';
import { type CriuOptions, runCriu } from './run-criu.ts';
import { type LookAtWriteBack, writeBackProblems } from './write-back.ts';

/** It waits for nothing but a processor. */
const ROOT_MILLISECONDS = 60_000;
const ROOT_POLL_MILLISECONDS = 5;

/** How a group is restored. */
export interface RestoreOptions extends CriuOptions {
  /** Where cgroup v2 is mounted; `/sys/fs/cgroup` if not given. */
  readonly cgroups?: string;
  /**
   * Says of numbers of processes and threads which are taken; one end of a sentence for each. With any,
   * nothing is tried.
   */
  readonly taken?: (numbers: readonly number[]) => readonly string[];
  /**
   * Looks at the restored processes before they run; returns what is not as it has to be, one end of a
   * sentence for each. With any, or if it throws, the group is ended.
   */
  readonly examine?: () => readonly string[];
  /** Processes that may have ended when they are looked for, because a crash procedure decides about them. */
  readonly mayEnd?: ReadonlySet<number>;
  /** See `GroupToRestore`. */
  readonly unit?: string;
  /** Looks at one image file; see `writeBackProblems`. */
  readonly waitForWriteBack?: LookAtWriteBack;
}

/** Nothing is left of the group. */
export interface RestoreFailure {
  readonly restored: false;
  /** One short sentence. */
  readonly reason: string;
  /** The log's lines with errors, or what was found wrong; first ones first. */
  readonly errors: readonly string[];
  readonly logPath: string;
  readonly seconds: number;
}

/** The processes run. */
export interface Restored {
  readonly restored: true;
  /** Processes that are there now. */
  readonly pids: readonly number[];
  readonly seconds: number;
  /** Small things that could not be set again. */
  readonly notes: readonly string[];
}

/** Seconds of the restore of one group. */
export interface RestoreSeconds {
  /** From the start of CRIU to its end. */
  readonly criu: number;
  /** With what is done before and after it. */
  readonly all: number;
}

/** What came of it. */
export type RestoreResult = Restored | RestoreFailure;

/** The processes are there as they will be, and do not run. To be released or ended. */
export interface HeldGroup {
  readonly restored: 'held';
  /** How long CRIU took, and all that was done until the processes are as they will be. */
  readonly seconds: RestoreSeconds;
  /**
   * Lets the processes run on.
   * @param cgroup where, as in /proc/PID/cgroup; where this program is if not given
   */
  release(cgroup?: string): Restored;
  /**
   * Makes them children of init, by ending the parent that they were made with, if there is one; they are
   * still held. Throws an Error if it does not end.
   */
  orphan(): Promise<void>;
  /**
   * Lets them run on, each in its cgroup, or throws an Error: then those that come before the one that cannot
   * be put there run, and the others are to be ended.
   * @param placeOf as in /proc/PID/cgroup
   */
  releaseInto(placeOf: (pid: number) => string): Restored;
  /** Ends them. Throws an Error if one of them does not end. */
  end(): Promise<void>;
}

/**
 * Restores the group whose images are in `directory` as far as the moment before its processes run: they are
 * frozen, with everything set that CRIU does not set, and `examine` has found them right. Nothing is left of
 * a group that could not be restored, whoever has ended CRIU. Throws only if the directory holds no images of
 * a group, or no cgroup can be made.
 */
export async function holdImages(
  directory: string,
  options: RestoreOptions = {},
): Promise<HeldGroup | RestoreFailure> {
  const plan = readRestorePlan(directory);
  const started = performance.now();
  const seconds = (): number => (performance.now() - started) / 1000;
  const [taken, ...others] = options.taken?.(plan.numbers) ?? [];
  if (taken !== undefined) {
    const logPath = join(directory, RESTORE_LOG);
    return { restored: false, reason: taken, errors: others, logPath, seconds: seconds() };
  }
  const cgroup = new RestoreCgroup(options.cgroups);
  let made: GroupResources | undefined;
  const end = async (): Promise<void> => {
    resetConnections(plan, cgroup.members());
    made?.finish(false);
    await cgroup.end();
  };
  const fail = async (reason: string, errors: readonly string[]): Promise<RestoreFailure> => {
    const left: string[] = [];
    await end().catch((error: unknown) => left.push(messageOf(error)));
    const logPath = join(directory, RESTORE_LOG);
    return { restored: false, reason, errors: [...errors, ...left], logPath, seconds: seconds() };
  };
  try {
    const resources = new GroupResources(directory, plan, cgroup.directory, {
      unit: options.unit,
      inside: options.inside,
    });
    made = resources;
    const before = seconds();
    const run = await withNonlocalBind(() => runCriu(directory, plan, cgroup, resources, options));
    const criu = seconds() - before;
    if (!run.held) {
      const errors = readErrors(directory);
      return await fail(run.endedFor ?? reasonOf(errors, run.status), errors);
    }
    await cgroup.frozen();
    const strange = strangers(plan, cgroup.members());
    if (strange.length === 0) await restoreRings(directory, plan.rings, cgroup);
    const problems = [...strange, ...(options.examine?.() ?? [])];
    if (problems[0] !== undefined) return await fail(problems[0], problems);
    await restoreMemoryKeys(plan.memoryKeys, cgroup);
    await restoreMdwe(plan.mdwe, cgroup);
    await restoreMemoryLocks(plan.memoryLocks, cgroup);
    await resources.held(cgroup);
    const notes = [...applyLateSettings(plan), ...(await restoreSignals(plan.signals, cgroup))];
    breakConnections(plan.brokenConnections);
    setPressureTriggers(plan.pressureTriggers);
    // All that is read of the images has been read.
    const wrong = [...writeBackProblems(directory, options.waitForWriteBack), ...resources.ready()];
    if (wrong[0] !== undefined) return await fail(wrong[0], wrong);
    const took = { criu, all: seconds() };
    return heldGroup({ plan, cgroup, resources, notes, seconds: took, mayEnd: options.mayEnd }, end);
  } catch (error) {
    return await fail(messageOf(error), []);
  }
}

/** Who is missing, and who is there and should not be. */
function strangers({ pids, rootPid }: RestorePlan, members: readonly number[]): string[] {
  const missing = [...new Set(pids).difference(new Set(members))];
  const others = [...new Set(members).difference(new Set([...pids, rootPid]))];
  return [
    ...missing.map((pid) => `process ${pid} ended before it ran again`),
    ...others.map((pid) => `criu has left process ${pid}, which is none of the group`),
  ];
}

interface Holding {
  readonly plan: RestorePlan;
  readonly cgroup: RestoreCgroup;
  readonly resources: GroupResources;
  readonly notes: readonly string[];
  readonly seconds: RestoreSeconds;
  readonly mayEnd: ReadonlySet<number> | undefined;
}

function heldGroup(
  { plan, cgroup, resources, notes, seconds, mayEnd }: Holding,
  end: () => Promise<void>,
): HeldGroup {
  const release = (place?: string): Restored => {
    const moved = cgroup.release(place);
    const lost = resources.finish(true);
    const pids = plan.pids.filter((pid) => mayEnd?.has(pid) || existsSync(`/proc/${pid}`));
    // Restored, and done with its work since: a `sleep` whose time was over.
    const ended = plan.pids
      .filter((pid) => !pids.includes(pid))
      .map((pid) => `process ${pid} ended as soon as it ran again`);
    return { restored: true, pids, seconds: seconds.all, notes: [...ended, ...notes, ...moved, ...lost] };
  };
  return {
    restored: 'held',
    seconds,
    release,
    orphan: () => endRoot(plan, cgroup),
    releaseInto: (placeOf) => {
      cgroup.moveInto(placeOf);
      return release();
    },
    end,
  };
}

/** The fabricated root ends as soon as it runs. */
async function endRoot({ rootPid }: RestorePlan, cgroup: RestoreCgroup): Promise<void> {
  if (rootPid === undefined) return;
  cgroup.takeOut(rootPid);
  const end = performance.now() + ROOT_MILLISECONDS;
  while (processStat(rootPid)?.isZombie === false) {
    if (performance.now() > end) throw new Error(`their parent ${rootPid} does not end`);
    await sleep(ROOT_POLL_MILLISECONDS);
  }
}

/** Restores a group on its own, and lets it run at once, in `cgroup`; see `holdImages` and `HeldGroup`. */
export async function restoreImages(
  directory: string,
  options: RestoreOptions = {},
  cgroup?: string,
): Promise<RestoreResult> {
  const group = await holdImages(directory, options);
  return group.restored === 'held' ? group.release(cgroup) : group;
}
