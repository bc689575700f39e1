import { captureCrashProcedures, type RecordSource } from '../capture/crash-procedure.ts';
import type { Config } from '../config/schema.ts';
import { applyCrashProcedures, type ProcedureOccasion, type ProcedurePlan } from '../criu/crash-procedure.ts';
import { abandonRecord, forceContinue } from '../criu/force-continue.ts';
import { dropProcedures, keepWithoutProcedures } from '../criu/procedure-fallback.ts';
import { type ProcedureOutcome, ProcedureWatch } from '../criu/procedure-watch.ts';
import { restoreImages } from '../criu/restore.ts';
import type { ProcessGroup } from '../model/group.ts';
import type { ProcessReport } from '../report/schema.ts';
import { messageOf } from './stages.ts';

type Settings = Config['crash-procedure'];
type ProcedureReport = NonNullable<ProcessReport['crashProcedure']>;
type DeliveredPlan = Extract<ProcedurePlan, { state: 'delivered' }>;

/** A group that was restored, and where its images are. */
export interface RestoredGroup {
  readonly pids: readonly number[];
  readonly directory: string;
}

/** What became of the procedures. */
export interface ProceduresResult {
  /** By pid, for the report. */
  readonly reports: ReadonlyMap<number, ProcedureReport>;
  /** Processes that are gone: their procedures ended them, or the fallback did. */
  readonly ended: ReadonlySet<number>;
}

/**
 * The crash procedures of one incident: found while the groups are captured, delivered with their images, watched
 * when they run. To be made before the first group is restored.
 */
export class Procedures {
  readonly #occasion: ProcedureOccasion;
  readonly #settings: Settings;
  readonly #plans: ProcedurePlan[] = [];
  /** Undefined where the kernel tells nothing of processes; `notes` has the reason. */
  readonly #watch: ProcedureWatch | undefined;
  readonly notes: string[] = [];

  constructor(occasion: ProcedureOccasion, settings: Settings) {
    this.#occasion = occasion;
    this.#settings = settings;
    try {
      this.#watch = new ProcedureWatch();
    } catch (error) {
      this.notes.push(`crash procedures are not watched: ${messageOf(error)}`);
    }
  }

  /** The group as its images are to be written; the same group if it has no valid record. */
  apply(kernel: RecordSource, group: ProcessGroup): ProcessGroup {
    const applied = applyCrashProcedures(group, captureCrashProcedures(kernel, group), this.#occasion);
    this.#plans.push(...applied.plans);
    return applied.group;
  }

  /** To be called when a group's images are written, with the group as it was captured. */
  keep(captured: ProcessGroup, directory: string): void {
    keepWithoutProcedures(captured, this.#plans, directory);
  }

  /** Processes that may end by themselves as soon as they are restored. */
  get mayEnd(): ReadonlySet<number> {
    return new Set(this.#delivered.map(({ pid }) => pid));
  }

  /** Waits for the procedures of the restored groups, at most their time limits, and does what the configuration says. */
  async finish(groups: readonly RestoredGroup[]): Promise<ProceduresResult> {
    const reports = new Map<number, ProcedureReport>();
    const ended = new Set<number>();
    for (const plan of this.#plans) {
      if (plan.state === 'ignored')
        reports.set(plan.pid, { delivery: 'none', state: 'ignored', detail: plan.reason });
    }
    const groupOf = new Map(groups.flatMap((group) => group.pids.map((pid) => [pid, group] as const)));
    const waiting = this.#delivered.filter(({ pid }) => groupOf.has(pid));
    const limit = this.#settings['time-limit-seconds'] * 1000;
    const outcomes = (await this.#watch?.outcomes(waiting, limit)) ?? [];
    this.#watch?.close();
    for (const plan of waiting) {
      const outcome = outcomes.find(({ pid }) => pid === plan.pid);
      const group = groupOf.get(plan.pid);
      if (outcome === undefined || group === undefined) {
        reports.set(plan.pid, { delivery: plan.procedure.delivery.kind, state: 'delivered' });
        continue;
      }
      const { report, alive } = await this.#conclude(plan, outcome, group);
      reports.set(plan.pid, report);
      if (!alive) ended.add(plan.pid);
    }
    return { reports, ended };
  }

  get #delivered(): DeliveredPlan[] {
    return this.#plans.filter((plan) => plan.state === 'delivered');
  }

  async #conclude(
    plan: DeliveredPlan,
    { state, detail }: ProcedureOutcome,
    group: RestoredGroup,
  ): Promise<{ report: ProcedureReport; alive: boolean }> {
    const delivery = plan.procedure.delivery.kind;
    const report: ProcedureReport = { delivery, state, ...(detail === undefined ? {} : { detail }) };
    if (state !== 'crashed' && state !== 'overran') {
      return { report, alive: state !== 'exited' && state !== 'gave-up' };
    }
    const { fallback } = this.#settings;
    const { alive, note } = await fallBack(plan, state, fallback, group);
    return { report: { ...report, detail: [detail, note].filter(Boolean).join('; '), fallback }, alive };
  }
}

/** What the configuration wants of a process whose procedure failed. */
async function fallBack(
  plan: DeliveredPlan,
  state: 'crashed' | 'overran',
  fallback: Settings['fallback'],
  group: RestoredGroup,
): Promise<{ alive: boolean; note: string }> {
  if (fallback !== 'continue') {
    if (state === 'overran') process.kill(plan.pid, 'SIGKILL');
    return { alive: false, note: state === 'overran' ? 'killed' : '' };
  }
  try {
    return state === 'overran' ? leaveProcedure(plan) : await restoreWithout(plan, group);
  } catch (error) {
    return { alive: state === 'overran', note: `it could not continue: ${messageOf(error)}` };
  }
}

function leaveProcedure({ pid, procedure, frame }: DeliveredPlan): { alive: boolean; note: string } {
  if (frame !== undefined) forceContinue(pid, procedure, frame);
  return { alive: true, note: 'taken out of it' };
}

/** Only for a process on its own: what was restored together with others has gone on with them. */
async function restoreWithout(
  { pid, procedure }: DeliveredPlan,
  group: RestoredGroup,
): Promise<{ alive: boolean; note: string }> {
  if (group.pids.length > 1) {
    return { alive: false, note: 'given up: processes that belong to it have gone on' };
  }
  dropProcedures(group.directory);
  const result = await restoreImages(group.directory);
  if (!result.restored) return { alive: false, note: `it could not be restored again: ${result.reason}` };
  abandonRecord(pid, procedure.address);
  return { alive: true, note: 'restored again without it' };
}
