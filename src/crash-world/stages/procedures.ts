import type { Config } from '../../config/schema.ts';
import { type DeliveredPlan, deliveredPlans } from '../../criu/images/index.ts';
import {
  abandonRecord,
  dropProcedures,
  forceContinue,
  type ProcedureOutcome,
  ProcedureWatch,
  removeLeft,
  restoreImages,
} from '../../criu/restore/index.ts';
import type { IncidentReport, ProcessReport } from '../../report/schema.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { scopeOf } from '../systemd/adoption.ts';
import { endScope } from '../systemd/scope-end.ts';
import { type EndImages, endImagesOf } from './images-stage.ts';
import { type RestoredGroup, restoreOptionsOf, timeLimitMinutesOf } from './restore-stage.ts';
import { orElse, stage, step } from './stage-list.ts';
import { StageSkipped } from './stage-runner.ts';

type Settings = Config['crash-procedure'] & { readonly timeLimitMinutes: number };
type ProcedureReport = NonNullable<ProcessReport['crashProcedure']>;

export const watchStep = step({
  name: 'watch',
  needs: {},
  run: (_, { report }) => ({ watch: openProcedureWatch(report) }),
});

/** If it fails, all that was restored counts as running. */
export const proceduresStage = stage({
  name: 'procedures',
  needs: {
    restored: orElse<readonly RestoredGroup[]>([]),
    watch: orElse<ProcedureWatch | undefined>(undefined),
  },
  run: async ({ restored, watch }, work) => {
    const conclusion = { report: work.report, endImages: endImagesOf(work) };
    const timeLimitMinutes = timeLimitMinutesOf(work.manifest);
    const settings = { ...work.manifest.config['crash-procedure'], timeLimitMinutes };
    return { restored: await awaitProcedures(restored, watch, settings, conclusion) };
  },
});

/**
 * Starts watching processes; to be called before the first one is restored. Undefined, with a note, if the
 * kernel cannot.
 */
function openProcedureWatch(report: IncidentReport): ProcedureWatch | undefined {
  try {
    return new ProcedureWatch();
  } catch (error) {
    report.notes.push(`crash procedures are not watched: ${messageWithCauses(error)}`);
    return undefined;
  }
}

/** What concerns all processes whose procedures are waited for. */
interface Means {
  readonly report: IncidentReport;
  readonly endImages: EndImages;
  /** Where cgroup v2 is mounted, if not where it always is. */
  readonly cgroups?: string;
}

interface Waiting {
  readonly plan: DeliveredPlan;
  readonly group: RestoredGroup;
}

/**
 * Waits for the crash procedures of the restored groups, at most their time limits, does what the
 * configuration says about those that failed, enters all of it into the report, and ends the images that were
 * kept for it, whatever happens. Of a process that came back for its procedure alone nothing is left if that
 * has not made another program of it, not even if nobody can watch any longer.
 *
 * @returns the groups with those processes that are still there
 */
export async function awaitProcedures(
  restored: readonly RestoredGroup[],
  watch: ProcedureWatch | undefined,
  settings: Settings,
  means: Means,
): Promise<RestoredGroup[]> {
  const waiting = restored.flatMap((group) =>
    deliveredPlans(group.imaged.plans).map((plan) => ({ plan, group })),
  );
  try {
    if (waiting.length === 0 || watch === undefined) throw new StageSkipped('no procedure to wait for');
    const ended = await concludeAll(waiting, watch, settings, means);
    return restored.map((group) => ({ ...group, pids: group.pids.filter((pid) => !ended.has(pid)) }));
  } finally {
    watch?.close();
    for (const group of new Set(waiting.map(({ group }) => group))) means.endImages(group.imaged, true);
  }
}

/** An outcome, and whether its process had to be killed for it. */
interface Concluded {
  readonly outcome: ProcedureOutcome;
  readonly wasKilled: boolean;
}

/** @returns the processes that are not there any more */
async function concludeAll(
  waiting: readonly Waiting[],
  watch: ProcedureWatch,
  settings: Settings,
  { report, cgroups }: Means,
): Promise<ReadonlySet<number>> {
  const outcomes = new Map<number, Concluded>();
  const ended = new Set<number>();
  const enter = (pid: number, conclusion: Conclusion) => {
    const entry = report.processes.find((process) => process.pid === pid);
    if (entry !== undefined) entry.crashProcedure = conclusion.report;
    if (!conclusion.alive) ended.add(pid);
  };
  const processes = waiting.map(({ plan, group: { releasedAt } }) => ({ ...plan, releasedAt }));
  const tell = (outcome: ProcedureOutcome) => {
    const own = waiting.find(({ plan }) => plan.pid === outcome.pid);
    // At once: others may have much more time.
    const isOver = own?.plan.mayContinue === false && outcome.state !== 'replaced';
    outcomes.set(outcome.pid, { outcome, wasKilled: isOver && endScope(own.group, cgroups) });
  };
  let failure: { readonly error: unknown } | undefined;
  try {
    await watch.outcomes(processes, settings['time-limit-seconds'] * 1000, tell);
  } catch (error) {
    failure = { error };
    // Nobody waits for them any more, and they are not to stay.
    for (const { plan, group } of waiting)
      if (!plan.mayContinue && !outcomes.has(plan.pid))
        enter(plan.pid, unwatched(plan, endScope(group, cgroups), error));
  }
  for (const { plan, group } of waiting) {
    const concluded = outcomes.get(plan.pid);
    if (concluded !== undefined) enter(plan.pid, await conclude(plan, concluded, group, settings));
  }
  if (failure !== undefined) throw failure.error;
  return ended;
}

/** What is said of a process of which nobody can tell what it makes of its procedure. */
function unwatched({ procedure }: DeliveredPlan, wasKilled: boolean, error: unknown): Conclusion {
  const what = wasKilled ? 'killed' : 'gone';
  const detail = `${what}: it may not stay in it, and cannot be watched any longer (${messageWithCauses(error)})`;
  const report: ProcedureReport = { delivery: procedure.delivery.kind, state: 'delivered', detail };
  return { report: { ...report, fallback: 'give-up' }, alive: false };
}

interface Conclusion {
  readonly report: ProcedureReport;
  readonly alive: boolean;
}

async function conclude(
  plan: DeliveredPlan,
  { outcome: { state, detail }, wasKilled }: Concluded,
  group: RestoredGroup,
  settings: Settings,
): Promise<Conclusion> {
  const { fallback } = settings;
  const delivery = plan.procedure.delivery.kind;
  if (state !== 'crashed' && state !== 'overran') {
    const report = { delivery, state, ...(detail === undefined ? {} : { detail }) };
    return { report, alive: state !== 'exited' && state !== 'gave-up' };
  }
  if (!plan.mayContinue) {
    const note = wasKilled ? 'killed' : '';
    const report = { delivery, state, detail: [detail, note].filter(Boolean).join('; ') };
    return { report: { ...report, fallback: fallback === 'continue' ? 'give-up' : fallback }, alive: false };
  }
  const { alive, note } = await fallBack(plan, state, settings, group);
  return { report: { delivery, state, detail: [detail, note].filter(Boolean).join('; '), fallback }, alive };
}

interface FallenBack {
  readonly alive: boolean;
  readonly note: string;
}

/** What the configuration wants of a process whose procedure failed. */
async function fallBack(
  plan: DeliveredPlan,
  state: 'crashed' | 'overran',
  { fallback, timeLimitMinutes }: Settings,
  group: RestoredGroup,
): Promise<FallenBack> {
  try {
    if (fallback === 'continue') {
      return state === 'overran' ? leaveProcedure(plan) : await restoreWithout(plan, group, timeLimitMinutes);
    }
    if (state === 'overran') process.kill(plan.pid, 'SIGKILL');
    return { alive: false, note: state === 'overran' ? 'killed' : '' };
  } catch (error) {
    return { alive: state === 'overran', note: messageWithCauses(error) };
  }
}

function leaveProcedure({ pid, procedure, frame }: DeliveredPlan): FallenBack {
  if (frame !== undefined) forceContinue(pid, procedure, frame);
  return { alive: true, note: 'taken out of it' };
}

/** Only for a process on its own: what was restored together with others has gone on with them. */
async function restoreWithout(
  { pid, procedure }: DeliveredPlan,
  { group, imaged, pids }: RestoredGroup,
  timeLimitMinutes: number,
): Promise<FallenBack> {
  if (pids.length > 1) return { alive: false, note: 'given up: processes that belong to it have gone on' };
  dropProcedures(imaged.directory);
  removeLeft(imaged.directory);
  // Another one may need as much.
  const options = restoreOptionsOf(imaged, timeLimitMinutes, [imaged]);
  const result = await restoreImages(imaged.directory, options, scopeOf(group).cgroup);
  if (!result.restored) return { alive: false, note: `it could not be restored again: ${result.reason}` };
  abandonRecord(pid, procedure.address);
  return { alive: true, note: 'restored again without it' };
}
