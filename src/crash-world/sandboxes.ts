import { readFileSync } from 'node:fs';
import { release as runningRelease } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadManifest } from '../config/manifest.ts';
import { moveTo } from '../criu/restore/index.ts';
import { endGroupImages } from '../report/images.ts';
import { resumeReport, saveReport } from '../report/incident.ts';
import type { IncidentReport } from '../report/schema.ts';
import { ifThere, processStat } from '../system/proc.ts';
import { readStateFile, replaceFile } from '../system/state-file.ts';
import { messageWithCauses } from '../system/thrown.ts';
import { scopeOf } from './adoption.ts';
import { type Handover, readHandover, writeHandover } from './handover.ts';
import { concludeGroup } from './process-reports.ts';
import { restoreIntoSandbox } from './restore-into-sandbox.ts';
import { sandboxFiles } from './sandbox-units.ts';
import { StageRunner } from './stage-runner.ts';
import { show, systemctl } from './systemctl.ts';
import { writeAfreshDropIn } from './units.ts';

const BETWEEN_LOOKS_MS = 100;
/** How long a unit may wait for what it requires before its placeholder is there. */
const MOST_MINUTES = 5;
/** How often it is looked whether a helper that has been told to end has ended. */
const MOST_TRIES = 100;

type SandboxedUnit = Handover['sandboxes'][number];

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

/** The processes in a cgroup; none if it is gone. */
function processesIn(cgroup: string): number[] {
  const path = join('/sys/fs/cgroup', cgroup, 'cgroup.procs');
  const text = ifThere(() => readFileSync(path, 'latin1')) ?? '';
  return text.split('\n').filter(Boolean).map(Number);
}

/** The units that wait for their processes. */
class SandboxBoot {
  #handover: Handover;
  readonly #report: IncidentReport;
  readonly #save: () => void;

  constructor(handover: Handover, report: IncidentReport, save: () => void) {
    this.#handover = handover;
    this.#report = report;
    this.#save = save;
  }

  async run(): Promise<void> {
    const waiting = new Map(this.#handover.sandboxes.map((one) => [one.unit, one]));
    for (const unit of waiting.keys()) this.#start(unit);
    const deadline = performance.now() + MOST_MINUTES * 60_000;
    while (waiting.size > 0) {
      for (const one of waiting.values()) {
        if (!(await this.#attempt(one, performance.now() > deadline))) continue;
        waiting.delete(one.unit);
        this.#save();
      }
      await sleep(BETWEEN_LOOKS_MS);
    }
  }

  /** The same as `#look`; an error is one of this unit alone. */
  async #attempt(one: SandboxedUnit, isLate: boolean): Promise<boolean> {
    try {
      return await this.#look(one, isLate);
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
  async #look(one: SandboxedUnit, isLate: boolean): Promise<boolean> {
    const placeholder = readStateFile(sandboxFiles(one.unit).waits);
    if (placeholder !== undefined) {
      await this.#restore(one, Number(placeholder));
      return true;
    }
    const now = show(one.unit, 'ActiveState', 'Job', 'Result', 'ExecMainStatus', 'LoadState');
    const state = now.get('ActiveState');
    if (!isLate && (state === 'activating' || (state === 'inactive' && (now.get('Job') ?? '') !== ''))) {
      return false;
    }
    const words = ['ActiveState', 'Result', 'ExecMainStatus'].map((name) => now.get(name)).join(', ');
    replaceFile(sandboxFiles(one.unit).failed, '');
    await this.#fail(one, [`its sandbox was not made: ${one.unit} is ${words}`]);
    return true;
  }

  async #restore(one: SandboxedUnit, placeholder: number): Promise<void> {
    const { restored } = sandboxFiles(one.unit);
    const result = await restoreIntoSandbox(one, placeholder);
    if ('problems' in result) {
      replaceFile(sandboxFiles(one.unit).afresh, '');
      await this.#fail(one, result.problems);
      return;
    }
    this.#report.notes.push(...result.notes);
    this.#enter(result.groups);
    replaceFile(restored, '');
    for (const { group } of result.groups) {
      concludeGroup(this.#report, group, 'restored', []);
      this.#endImages(one, group, true);
    }
    await this.#moveIn(one.unit);
  }

  /** Has the part after the boot know the restored groups. */
  #enter(groups: readonly { readonly group: number; readonly pids: readonly number[] }[]): void {
    const entries = groups.map(({ group, pids }) => ({
      group,
      limits: {},
      processes: pids.flatMap((pid) => {
        const now = processStat(pid);
        return now === undefined ? [] : [{ pid, startTicks: now.startTicks, isZombie: now.isZombie }];
      }),
    }));
    this.#handover = { ...this.#handover, groups: [...this.#handover.groups, ...entries] };
    writeHandover(this.#handover);
  }

  /**
   * Moves the processes into the unit's cgroup when systemd calls it active: a failed start would end them.
   */
  async #moveIn(unit: string): Promise<void> {
    let now = show(unit, 'ActiveState', 'ControlGroup');
    for (; now.get('ActiveState') === 'activating'; now = show(unit, 'ActiveState', 'ControlGroup')) {
      await sleep(BETWEEN_LOOKS_MS);
    }
    const cgroup = now.get('ControlGroup') ?? '';
    if (now.get('ActiveState') !== 'active' || cgroup === '') return;
    const adoption = this.#handover.units.find((other) => other.unit === unit);
    for (const { pid, below } of adoption?.processes ?? []) {
      try {
        moveTo(pid, `${cgroup}${below}`);
      } catch (error) {
        if (processStat(pid)?.isZombie === false)
          this.#report.errors.push(`process ${pid} of ${unit} stays outside: ${messageWithCauses(error)}`);
      }
    }
    const groups = this.#handover.sandboxes.find((other) => other.unit === unit)?.groups ?? [];
    for (const { group } of groups) this.#moveLater(group, cgroup);
  }

  /** Moves what the processes of a group have started since they run. */
  #moveLater(group: number, cgroup: string): void {
    const from = scopeOf(group).cgroup;
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      const pids = processesIn(from);
      if (pids.length === 0) return;
      for (const pid of pids) {
        try {
          moveTo(pid, cgroup);
        } catch (error) {
          if (processStat(pid)?.isZombie === false) throw error;
        }
      }
    }
    this.#report.errors.push(`processes in ${from} start others faster than they can be moved`);
  }

  /** Starts a unit afresh of which the processes do not come back; its helper has been told. */
  async #fail(one: SandboxedUnit, reasons: readonly string[]): Promise<void> {
    for (const { group } of one.groups) {
      concludeGroup(this.#report, group, 'failed', reasons);
      this.#endImages(one, group, false);
    }
    await this.#startAfresh(one.unit);
  }

  #endImages(one: SandboxedUnit, group: number, isRestored: boolean): void {
    const { incident, incidents } = this.#handover;
    const { directory, keep } = loadManifest().config.images;
    const images = join(directory, incident);
    const problems = endGroupImages(images, group, join(incidents, incident), { keep, isRestored });
    this.#report.notes.push(...problems.map((problem) => `${one.unit}: ${problem}`));
  }

  /** Starts a unit as a plain boot would have, when its helper has ended. */
  async #startAfresh(unit: string): Promise<void> {
    // A restart of a unit that is being started would break that off, and all that waits for it with it.
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (show(unit, 'ActiveState').get('ActiveState') !== 'activating') break;
      await sleep(BETWEEN_LOOKS_MS);
    }
    writeAfreshDropIn(unit);
    systemctl('daemon-reload');
    systemctl('restart', '--no-block', '--', unit);
    // Only now: what ends before this is made up for when the system has booted.
    const units = this.#handover.units.filter((other) => other.unit !== unit);
    this.#handover = { ...this.#handover, units };
    writeHandover(this.#handover);
  }
}
