import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadManifest } from '../../config/manifest.ts';
import { SANDBOX_PROGRAM_MINUTES } from '../../config/restore-time.ts';
import { endGroupImages } from '../../report/images.ts';
import { resumeReport, saveReport } from '../../report/incident.ts';
import type { IncidentReport } from '../../report/schema.ts';
import { endNonlocalBind } from '../../system/nonlocal-bind.ts';
import { processStat } from '../../system/proc.ts';
import { readStateFile, replaceFile } from '../../system/state-file.ts';
import { messageWithCauses } from '../../system/thrown.ts';
import { concludeGroup, noteRestoreSeconds } from '../incident/process-reports.ts';
import { noteStalePidFiles } from '../mounts/saved-tmpfs.ts';
import { StageRunner } from '../stages/stage-runner.ts';
import { whyNot } from '../systemd/adopt.ts';
import { isStartedByBoot, startAfresh } from '../systemd/afresh.ts';
import { type Handover, readHandover, writeHandover } from '../systemd/handover.ts';
import { show, systemctl } from '../systemd/systemctl.ts';
import { helperSays } from '../systemd/units.ts';
import { ApartConnections, readApartEnds } from './apart-connections.ts';
import { type HeldUnit, restoreIntoSandbox, toRestoreOf } from './restore-into-sandbox.ts';
import { sandboxFiles } from './sandbox-units.ts';
import { answerAll, answerConnections } from './unanswered.ts';

const BETWEEN_LOOKS_MS = 100;
/**
 * How long a unit may wait for what it requires before its placeholder is there; from the last time that it
 * was decided what becomes of one.
 */
const MOST_MINUTES = 5;

type SandboxedUnit = Handover['sandboxes'][number];

/** A time that begins again with each progress. */
export class WaitLimit {
  readonly #milliseconds: number;
  readonly #now: () => number;
  #end: number;

  constructor(milliseconds: number, now: () => number = () => performance.now()) {
    this.#milliseconds = milliseconds;
    this.#now = now;
    this.#end = now() + milliseconds;
  }

  isOver(): boolean {
    return this.#now() > this.#end;
  }

  restart(): void {
    this.#end = this.#now() + this.#milliseconds;
  }
}

/**
 * Whether a unit is ordered after another one that waits as well: that one's turn comes first.
 * @param now `After` of the unit
 */
export function waitsForOther(
  unit: string,
  now: ReadonlyMap<string, string>,
  waiting: Pick<ReadonlyMap<string, unknown>, 'has'>,
): boolean {
  const before = (now.get('After') ?? '').split(' ');
  return before.some((other) => other !== unit && waiting.has(other));
}

/** Enters how long the restore of each group of a unit took. */
export function noteHeld(report: Pick<IncidentReport, 'groups'>, groups: HeldUnit['groups']): void {
  for (const { group, seconds } of groups) noteRestoreSeconds(report, group, seconds);
}

/**
 * The crash world's work while the system boots: units of which the processes were in a sandbox start a
 * placeholder in a new one, and their processes are restored there, unit by unit. A unit whose processes do
 * not come back starts afresh.
 */
export async function restoreSandboxes(): Promise<void> {
  const handover = readHandover();
  const report = resumeReport(handover.incident, runningRelease(), handover.incidents);
  const runner = new StageRunner(report, (current) => saveReport(current, handover.incidents));
  await runner.run('into-sandboxes', () => new SandboxBoot(handover, report, () => runner.save()).run());
}

/** The units that wait for their processes. */
class SandboxBoot {
  #handover: Handover;
  readonly #report: IncidentReport;
  readonly #save: () => void;
  readonly #end = new WaitLimit(SANDBOX_PROGRAM_MINUTES * 60_000);
  readonly #apart: ApartConnections;

  constructor(handover: Handover, report: IncidentReport, save: () => void) {
    this.#handover = handover;
    this.#report = report;
    this.#save = save;
    this.#apart = new ApartConnections(readApartEnds(report), report);
  }

  async run(): Promise<void> {
    this.#report.errors.push(...endNonlocalBind());
    // Before any of them is started by this program.
    const sandboxes = this.#handover.sandboxes.map((one) => ({
      ...one,
      startsAtBoot: isStartedByBoot(show(one.unit, 'ActiveState', 'Job')),
    }));
    this.#write({ sandboxes });
    const waiting = new Map(sandboxes.map((one) => [one.unit, one]));
    for (const unit of waiting.keys()) this.#start(unit);
    const limit = new WaitLimit(MOST_MINUTES * 60_000);
    while (waiting.size > 0) {
      for (const one of waiting.values()) {
        const others = [...waiting.values()].filter((other) => other !== one);
        const isLate = (): boolean =>
          this.#end.isOver() ||
          (limit.isOver() && !waitsForOther(one.unit, show(one.unit, 'After'), waiting));
        if (!(await this.#attempt(one, others, isLate))) continue;
        waiting.delete(one.unit);
        // Whatever has become of it: what is there answers by itself.
        for (const { group } of one.groups) answerConnections(group);
        await this.#apart.decided();
        limit.restart();
        this.#save();
      }
      await sleep(BETWEEN_LOOKS_MS);
    }
    await answerAll();
  }

  /** The same as `#look`; an error is one of this unit alone. */
  async #attempt(
    one: SandboxedUnit,
    others: readonly SandboxedUnit[],
    isLate: () => boolean,
  ): Promise<boolean> {
    try {
      return await this.#look(one, others, isLate);
    } catch (error) {
      this.#report.errors.push(`${one.unit}: ${messageWithCauses(error)}`);
      return true;
    }
  }

  /** Enabled ones start by themselves; those that were started by hand do not. */
  #start(unit: string): void {
    try {
      systemctl('start', '--no-block', '--', unit);
    } catch (error) {
      // It is seen by its state.
      this.#report.errors.push(`${unit}: ${messageWithCauses(error)}`);
    }
  }

  /** @returns whether it is decided what becomes of the unit */
  async #look(one: SandboxedUnit, others: readonly SandboxedUnit[], isLate: () => boolean): Promise<boolean> {
    const placeholder = readStateFile(sandboxFiles(one.unit).waits);
    if (placeholder !== undefined) {
      await this.#restore(one, others, Number(placeholder));
      return true;
    }
    const now = show(one.unit, 'ActiveState', 'Job', 'Result', 'ExecMainStatus', 'LoadState');
    const state = now.get('ActiveState');
    const isPending = state === 'activating' || (state === 'inactive' && (now.get('Job') ?? '') !== '');
    if (isPending && !isLate()) return false;
    const words = ['ActiveState', 'Result', 'ExecMainStatus'].map((name) => now.get(name)).join(', ');
    replaceFile(sandboxFiles(one.unit).failed, '');
    const why = 'its sandbox was not made, or nothing can be run there';
    await this.#fail(one, [`${why}: ${one.unit} is ${words}`]);
    return true;
  }

  async #restore(one: SandboxedUnit, others: readonly SandboxedUnit[], placeholder: number): Promise<void> {
    const result = await restoreIntoSandbox(one, placeholder, toRestoreOf(others));
    if ('problems' in result) {
      replaceFile(sandboxFiles(one.unit).afresh, '');
      await this.#fail(one, result.problems);
      return;
    }
    noteHeld(this.#report, result.groups);
    try {
      await this.#apart.beforeRunning(new Set(result.groups.map(({ group }) => group)));
      // Its helper names the main process to systemd; nothing runs until that has it.
      replaceFile(sandboxFiles(one.unit).restored, '');
      const cgroup = await this.#taken(one.unit);
      this.#enter(result.groups);
      this.#report.notes.push(...result.release((pid) => `${cgroup}${this.#below(one.unit, pid)}`));
    } catch (error) {
      this.#leave(result.groups);
      await this.#fail(one, [messageWithCauses(error), ...(await result.end())]);
      return;
    }
    for (const { group } of result.groups) {
      concludeGroup(this.#report, group, 'restored', []);
      this.#endImages(one, group, true);
    }
  }

  /**
   * Waits until systemd calls a unit active: a failed start would end its processes.
   * @returns the unit's cgroup
   * @throws Error if it does not become active, or with another main process
   */
  async #taken(unit: string): Promise<string> {
    const look = () =>
      show(unit, 'ActiveState', 'ControlGroup', 'MainPID', 'SubState', 'Result', 'LoadState');
    let now = look();
    for (; now.get('ActiveState') === 'activating' && !this.#end.isOver(); now = look())
      await sleep(BETWEEN_LOOKS_MS);
    const mainPid = this.#handover.units.find((other) => other.unit === unit)?.mainPid;
    const cgroup = now.get('ControlGroup') ?? '';
    if (now.get('ActiveState') !== 'active' || cgroup === '' || now.get('MainPID') !== String(mainPid))
      throw new Error(
        [`${unit} did not take up its processes: ${whyNot(mainPid ?? 0, now)}`, helperSays(unit)]
          .filter((words) => words !== '')
          .join('; '),
      );
    return cgroup;
  }

  /** The cgroup of a process below its unit's own. */
  #below(unit: string, pid: number): string {
    const adoption = this.#handover.units.find((other) => other.unit === unit);
    return adoption?.processes.find((other) => other.pid === pid)?.below ?? '';
  }

  /** Has the part after the boot know the groups, of which the processes do not run yet. */
  #enter(groups: HeldUnit['groups']): void {
    const entries = groups.map(({ group, pids }) => ({
      group,
      limits: {},
      processes: pids.flatMap((pid) => {
        const now = processStat(pid);
        return now === undefined ? [] : [{ pid, startTicks: now.startTicks, isZombie: now.isZombie }];
      }),
    }));
    this.#write({ groups: [...this.#handover.groups, ...entries] });
  }

  #leave(groups: HeldUnit['groups']): void {
    const left = new Set(groups.map(({ group }) => group));
    this.#write({ groups: this.#handover.groups.filter(({ group }) => !left.has(group)) });
  }

  #write(change: Partial<Handover>): void {
    this.#handover = { ...this.#handover, ...change };
    writeHandover(this.#handover);
  }

  /** Starts a unit afresh of which the processes do not come back; its helper has been told. */
  async #fail(one: SandboxedUnit, reasons: readonly string[]): Promise<void> {
    for (const { group } of one.groups) {
      concludeGroup(this.#report, group, 'failed', reasons);
      this.#endImages(one, group, false);
    }
    noteStalePidFiles({ pidFiles: one.pidFiles }, new Set(), this.#report);
    await startAfresh(one.unit, one.startsAtBoot ?? true, this.#report);
    // Only now: what ends before this is made up for when the system has booted.
    this.#write({ units: this.#handover.units.filter((other) => other.unit !== one.unit) });
  }

  #endImages(one: SandboxedUnit, group: number, isRestored: boolean): void {
    const { incident, incidents } = this.#handover;
    const { directory, keep } = loadManifest().config.images;
    const images = join(directory, incident);
    const problems = endGroupImages(images, group, join(incidents, incident), { keep, isRestored });
    this.#report.notes.push(...problems.map((problem) => `${one.unit}: ${problem}`));
  }
}
