import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { CRASH_WORLD_PARAMETER, INCIDENTS_DIRECTORY } from '../src/config/paths.ts';
import { type IncidentReport, reportSchema } from '../src/report/schema.ts';
import { answers, dropConnection, execChecked, LOOK_SECONDS } from './channel.ts';
import { consoleTail } from './console-log.ts';
import { LabError } from './error.ts';
import { checkCpu, type Fault, makeFatal, strike } from './fault.ts';
import { guestPid, readRunningGuest } from './guest.ts';
import { guestClock } from './guest-time.ts';
import { isArmed } from './install.ts';
import type { Progress } from './progress.ts';

/** How a panic in the lab is to go. */
export interface PanicOptions {
  fault: Fault;
  /** On which CPU; undefined: any. */
  cpu?: number | undefined;
  /** Longest time from the fault to the crash world's report, of the guest's own time. */
  waitSeconds: number;
  /** Strike even if no crash kernel is loaded, and wait for nothing. */
  unarmed: boolean;
}

/**
 * Kills a guest's kernel and waits until the crash world has reported.
 * @returns the id of the incident; undefined for an unarmed guest
 * @throws LabError if the guest is not armed or in its crash world, or never reports (with the end of its
 * console)
 */
export async function panicGuest(
  name: string,
  options: PanicOptions,
  progress: Progress,
): Promise<string | undefined> {
  readRunningGuest(name);
  const qemu = guestPid(name);
  if (options.cpu !== undefined) checkCpu(name, options.fault, options.cpu);
  if (!options.unarmed && !(await isArmed(name))) await refuseUnarmed(name);
  const known = await incidentStates(name, LOOK_SECONDS);
  const start = performance.now();
  progress.step(`killing the kernel of ${name} (${options.fault})`);
  await makeFatal(name, options.fault);
  await strike(name, options.fault, options.cpu);
  await dropConnection(name);
  if (options.unarmed) return undefined;
  // What answers within the first seconds may still be the old world.
  await sleep(1500);
  const incident = await newIncident(name, known, options.waitSeconds, () => guestPid(name) === qemu);
  checkWaited(name, incident, options.waitSeconds, guestPid(name) === qemu);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  progress.step(`incident ${incident.id} is ${incident.state}, ${seconds} s after the fault`);
  return incident.id;
}

/**
 * Checks what waiting for a report came to.
 * @param isThere whether the guest is the one that panicked, still
 * @throws LabError if there is no report, or no guest any more in which it would have been finished
 */
export function checkWaited(
  name: string,
  incident: Incident | undefined,
  seconds: number,
  isThere: boolean,
): asserts incident is Incident {
  if (incident !== undefined && (isThere || FINAL.includes(incident.state))) return;
  const end = consoleTail(name, 30);
  const said = end === '' ? '' : `; the end of its console:\n${end}`;
  throw new LabError(
    isThere
      ? `the crash world of ${name} did not report within ${seconds} s${said}`
      : `guest ${name} is gone: it was taken down, or its QEMU has ended, before its crash world had reported${said}`,
  );
}

/** @throws LabError always, with what can be done in the world that the guest is in */
async function refuseUnarmed(name: string): Promise<never> {
  const parameters = await execChecked(name, ['cat', '/proc/cmdline'], { timeoutSeconds: LOOK_SECONDS });
  throw new LabError(
    parameters.includes(CRASH_WORLD_PARAMETER)
      ? `guest ${name} is in its crash world already, and would not survive another panic: ` +
          `'lab down ${name}' and 'lab up ${name}' start anew (or --unarmed to panic anyway)`
      : `guest ${name} is not armed: 'lab exec ${name} -- otherworld arm' (or --unarmed to panic anyway)`,
  );
}

/** A look may have gone to the dying kernel, and then never ends; the next one goes to the crash world. */
const TRY_SECONDS = 60;

/** What is asked of an incident. */
export interface Incident {
  id: string;
  /** Of FINAL once the report is complete. */
  state: string;
}

/** Nothing more comes: the crash world has booted, or the ordinary system after it. */
const FINAL: readonly string[] = ['settled', 'abandoned'] satisfies IncidentReport['state'][];

/**
 * Waits for an incident that was not known before to be finished.
 * @param seconds of the guest's own time
 * @param isThere whether the guest is the one that panicked, still
 * @returns it, as far as it came in time
 */
async function newIncident(
  name: string,
  known: readonly Incident[],
  seconds: number,
  isThere: () => boolean,
): Promise<Incident | undefined> {
  let latest: Incident | undefined;
  let states: Incident[] | undefined;
  const elapsed = guestClock(guestPid(name) ?? 0);
  while (elapsed() < seconds && isThere() && !FINAL.includes(latest?.state ?? '')) {
    // Once there is a connection, its guest is not asked for another one: for each sshd starts a program.
    if (states !== undefined || (await answers(name, seconds - elapsed()).catch(onlyUnreachable))) {
      states = await incidentStates(name, TRY_SECONDS).catch(onlyUnreachable);
      latest = states?.find(({ id }) => known.every((old) => old.id !== id)) ?? latest;
    }
    if (!FINAL.includes(latest?.state ?? '')) await sleep(1000);
  }
  return latest;
}

/**
 * A connection may have been made to the dying kernel, or to a crash world that is still coming up; or there
 * is no guest any more.
 */
function onlyUnreachable(error: unknown): undefined {
  if (error instanceof LabError) return undefined;
  throw error;
}

const report = z.object({ id: z.string(), state: z.string() });

async function incidentStates(name: string, timeoutSeconds: number): Promise<Incident[]> {
  const script = `for file in ${INCIDENTS_DIRECTORY}/*/report.json; do [ ! -e "$file" ] || { cat "$file"; printf '\\0'; }; done`;
  const texts = await execChecked(name, ['sh', '-c', script], { timeoutSeconds });
  return texts
    .split('\0')
    .filter((text) => text.trim() !== '')
    .map((text) => report.parse(JSON.parse(text)));
}

/**
 * Reads an incident's report out of a guest: as a file, because while services start a command of the guest's
 * own takes many times as long.
 * @throws LabError if it cannot be read, or is of another version than this
 */
export async function readReport(name: string, incident: string): Promise<IncidentReport> {
  const path = `${INCIDENTS_DIRECTORY}/${incident}/report.json`;
  const text = await execChecked(name, ['cat', path], { timeoutSeconds: LOOK_SECONDS });
  const parsed = reportSchema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new LabError(
    `${path} in ${name} is not a report of this version's making (${z.prettifyError(parsed.error)}); ` +
      `'lab exec ${name} -- otherworld report ${incident}' prints it`,
  );
}
