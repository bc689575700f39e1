import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { IncidentReport } from '../../report/schema.ts';
import { cgroupOf, ifThere, processStat } from '../../system/proc.ts';
import { codeOf, messageWithCauses } from '../../system/thrown.ts';
import { SLICE, scopeOf, type UnitAdoption } from './adoption.ts';
import { afreshCommand } from './afresh.ts';
import type { Handover } from './handover.ts';
import { limitProperties } from './scope-limits.ts';
import { show, systemctl } from './systemctl.ts';
import { helperSays, removeDropIn, removeSystemDropIns, serviceType, writeNamelessDropIn } from './units.ts';
import { type Looking, looking, unitOf } from './what-runs.ts';

/**
 * How long a service may go on being started after everything else is up: the helper's own limit is longer.
 */
const MOST_TRIES = 100;
const BETWEEN_TRIES_MS = 200;

/**
 * Lets systemd have the restored processes: services take up theirs, what is left gets scopes, and the units
 * become what they were. What a service does not take up runs on in its group's scope, and the report says
 * why.
 */
export async function adoptAll(
  { units, groups, sandboxes }: Pick<Handover, 'units' | 'groups' | 'sandboxes'>,
  report: IncidentReport,
): Promise<void> {
  let afresh: string[] = [];
  try {
    afresh = await takeUp({ units, groups }, report);
  } finally {
    for (const { unit } of units) restoreUnit(unit, report);
    removeSystemDropIns();
    systemctl('daemon-reload');
  }
  // The main process ended before its service could take it up: as at any other end of it. One that no boot
  // starts, and that does not restart, has ended: it was asked for once.
  for (const unit of afresh) {
    const sandbox = sandboxes.find((other) => other.unit === unit);
    if (sandbox === undefined) {
      systemctl('restart', '--no-block', '--', unit);
      continue;
    }
    const isRestarted = sandbox.startsAtBoot !== false || show(unit, 'Restart').get('Restart') !== 'no';
    systemctl(...afreshCommand(unit, isRestarted));
  }
}

/** @returns services whose main process has ended meanwhile */
async function takeUp(
  { units, groups }: Pick<Handover, 'units' | 'groups'>,
  report: IncidentReport,
): Promise<string[]> {
  const afresh: string[] = [];
  for (const adoption of units) {
    const problem = await adoptUnit(adoption);
    if (problem === undefined) continue;
    const isThere = processStat(adoption.mainPid)?.isZombie === false;
    if (!isThere) afresh.push(adoption.unit);
    const where = scopesOf(adoption, groups).join(', ');
    const now = where === '' ? 'they have ended' : `they run on in ${where}`;
    report.errors.push(`${adoption.unit} did not take up its processes: ${problem}; ${now}`);
  }
  for (const group of groups) {
    const isLeft = (pid: number): boolean => cgroupOf(pid) === scopeOf(group.group).cgroup;
    const left = group.processes.map(({ pid }) => pid).filter(isLeft);
    if (left.length > 0) report.errors.push(...startScope(group, left));
    else removeCgroup(scopeOf(group.group).cgroup);
  }
  return afresh;
}

/** The scopes in which processes of a service are now. */
function scopesOf({ processes }: UnitAdoption, groups: Handover['groups']): string[] {
  const cgroups = new Set(processes.map(({ pid }) => cgroupOf(pid)));
  return groups
    .map(({ group }) => scopeOf(group))
    .filter(({ cgroup }) => cgroups.has(cgroup))
    .map(({ unit }) => unit);
}

/**
 * Enabled services have taken up their processes during the boot; one that was started by hand, or whose
 * start failed, is started now.
 * @returns why systemd does not have the main process, or its cgroup not all of them; undefined if it has
 */
async function adoptUnit({ unit, mainPid, processes }: UnitAdoption): Promise<string | undefined> {
  try {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (show(unit, 'ActiveState').get('ActiveState') !== 'activating') break;
      await sleep(BETWEEN_TRIES_MS);
    }
    // Whether that succeeds is seen by what is there afterwards.
    const { stderr } = spawnSync('systemctl', ['start', '--', unit], { encoding: 'utf8' });
    const now = show(unit, 'MainPID', 'ActiveState', 'SubState', 'Result', 'ExecMainStatus', 'LoadState');
    if (now.get('MainPID') !== String(mainPid)) return whyNot(mainPid, now, stderr);
    const cgroup = show(unit, 'ControlGroup').get('ControlGroup') ?? '';
    const outside = await whoStaysOutside(
      () => outsideUnit({ unit, processes }),
      () => othersIn(cgroup, processes).length > 0,
    );
    const why = outside === undefined ? '' : helperSays(unit);
    return why === '' ? outside : `${outside} (${why})`;
  } catch (error) {
    return messageWithCauses(error);
  }
}

/**
 * How long the helper may take to move the processes once systemd has the main one; on a machine whose
 * services are all being started, a shell takes its time.
 */
const HELPER_MILLISECONDS = 300_000;

/**
 * The helper moves the processes only when systemd has the main one: some time after the unit is active.
 * Waits for it as long as it is there.
 */
export async function whoStaysOutside(
  outside: () => readonly number[],
  isAtWork: () => boolean,
  mostMilliseconds: number = HELPER_MILLISECONDS,
): Promise<string | undefined> {
  const end = performance.now() + mostMilliseconds;
  while (outside().length > 0 && isAtWork() && performance.now() < end) await sleep(BETWEEN_TRIES_MS);
  // What it moved last, it may have moved since the look before.
  const pids = outside();
  return pids.length === 0 ? undefined : `not moved into its cgroup: ${pids.join(', ')}`;
}

/** Processes in a unit's cgroup that are none of those which it is to take up: its helper. */
function othersIn(cgroup: string, processes: UnitAdoption['processes']): number[] {
  const file = join('/sys/fs/cgroup', cgroup, 'cgroup.procs');
  const own = new Set(processes.map(({ pid }) => pid));
  const pids = ifThere(() => readFileSync(file, 'latin1'))?.split('\n') ?? [];
  return pids.map(Number).filter((pid) => pid > 0 && !own.has(pid));
}

/** The living processes of a service that are not in its cgroup. A zombie cannot be moved. */
export function outsideUnit(
  { unit, processes }: Pick<UnitAdoption, 'unit' | 'processes'>,
  look: Looking = looking,
): number[] {
  const pids = processes.map(({ pid }) => pid);
  return pids.filter((pid) => {
    const cgroup = look.cgroup(pid);
    return look.stat(pid)?.isZombie === false && cgroup !== undefined && unitOf(cgroup) !== unit;
  });
}

/**
 * What systemd says of a unit that does not have the main process.
 * @param said what `systemctl start` said
 */
export function whyNot(mainPid: number, now: ReadonlyMap<string, string>, said = ''): string {
  if (now.get('LoadState') !== 'loaded') return `the unit is ${now.get('LoadState')}`;
  const other = now.get('MainPID');
  if (other !== undefined && other !== '0') return `it has main process ${other} instead of ${mainPid}`;
  const status = now.get('ExecMainStatus') === '0' ? '' : `, status ${now.get('ExecMainStatus')}`;
  const [first = ''] = said.split('\n');
  const state = `it is ${now.get('ActiveState')} (${now.get('SubState')}, ${now.get('Result')}${status})`;
  return first === '' ? state : `${state}: ${first}`;
}

/** Makes a unit what it was before the boot, as far as that does not end what it has taken up. */
function restoreUnit(unit: string, report: IncidentReport): void {
  removeDropIn(unit);
  try {
    const busName = show(unit, 'BusName').get('BusName') ?? '';
    if (busName === '' || serviceType(systemctl('cat', '--', unit), busName) !== 'dbus' || hasOwner(busName))
      return;
    writeNamelessDropIn(unit);
    report.notes.push(
      `${unit} is of Type=exec until the next boot: nobody has the name ${busName} on the bus`,
    );
  } catch (error) {
    report.errors.push(`${unit}: ${messageWithCauses(error)}`);
  }
}

function hasOwner(busName: string): boolean {
  const bus = 'org.freedesktop.DBus';
  const call = ['--system', 'call', bus, '/org/freedesktop/DBus', bus, 'NameHasOwner', 's', busName];
  return spawnSync('busctl', call, { encoding: 'utf8' }).stdout?.trim() === 'b true';
}

/** Removes a cgroup that nobody is in any more; one that a zombie still counts in stays, and does no harm. */
function removeCgroup(cgroup: string): void {
  try {
    rmdirSync(join('/sys/fs/cgroup', cgroup));
  } catch (error) {
    if (codeOf(error) !== 'EBUSY' && codeOf(error) !== 'ENOENT') throw error;
  }
}

/**
 * Moves the processes named by its arguments into its own cgroup, and ends. One that has ended meanwhile
 * needs no place.
 */
const JOIN = `own=$(sed -n s/^0:://p /proc/self/cgroup)
for pid; do echo $pid >/sys/fs/cgroup$own/cgroup.procs || [ ! -e /proc/$pid ] || exit 1; done`;

/**
 * Starts the scope of a group with its limits, or without, if systemd does not take these. It lives as long
 * as there are processes in it, here those that are moved in by the one that it is made with.
 * @returns what went wrong
 */
function startScope({ group, limits }: Handover['groups'][number], pids: readonly number[]): string[] {
  const { unit } = scopeOf(group);
  const properties = limitProperties(limits);
  try {
    runScope(unit, properties, pids);
    return [];
  } catch (error) {
    if (properties.length === 0) return [`${unit}: ${messageWithCauses(error)}`];
    const problem = `${unit} is without its limits (${properties.join(', ')}): ${messageWithCauses(error)}`;
    return [problem, ...startScope({ group, limits: {}, processes: [] }, pids)];
  }
}

function runScope(unit: string, properties: readonly string[], pids: readonly number[]): void {
  const description = '--description=Processes brought back by Otherworld';
  const name = [`--unit=${unit}`, `--slice=${SLICE}`, description];
  const options = [
    '--scope',
    '--quiet',
    '--collect',
    ...name,
    ...properties.map((value) => `--property=${value}`),
  ];
  execFileSync('systemd-run', [...options, 'sh', '-c', JOIN, 'sh', ...pids.map(String)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}
