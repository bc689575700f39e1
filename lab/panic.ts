import { setTimeout as sleep } from 'node:timers/promises';
import { consoleTail } from './boot.ts';
import { answers, dropConnection, execCaptured } from './channel.ts';
import { LabError } from './error.ts';
import { type Fault, strike } from './fault.ts';
import { guestPid, readRunningGuest } from './guest.ts';
import { isArmed } from './install.ts';
import type { Progress } from './progress.ts';

/** Directory of incidents in a guest. */
const INCIDENTS = '/var/lib/otherworld/incidents';

/** How a panic in the lab is to go. */
export interface PanicOptions {
  fault: Fault;
  /** Longest time from the fault to the crash world's report. */
  waitSeconds: number;
  /** Strike even if no crash kernel is loaded, and wait for nothing. */
  unarmed: boolean;
}

/**
 * Kills a guest's kernel and waits until the crash world has reported.
 * @returns the id of the incident; undefined for an unarmed guest
 * @throws LabError if the guest is not armed, or never reports (with the end of its console)
 */
export async function panicGuest(
  name: string,
  options: PanicOptions,
  progress: Progress,
): Promise<string | undefined> {
  readRunningGuest(name);
  if (!options.unarmed && !(await isArmed(name))) {
    throw new LabError(
      `guest ${name} is not armed: 'lab exec ${name} -- otherworld arm' (or --unarmed to panic anyway)`,
    );
  }
  const known = await reportedIncidents(name);
  const start = performance.now();
  progress.step(`killing the kernel of ${name} (${options.fault})`);
  await strike(name, options.fault);
  await dropConnection(name);
  if (options.unarmed) return undefined;
  const end = start + options.waitSeconds * 1000;
  // What answers within the first seconds may still be the old world.
  await sleep(1500);
  while (performance.now() < end && guestPid(name) !== undefined) {
    const fresh = await freshIncident(name, known, (end - performance.now()) / 1000);
    if (fresh !== undefined) {
      progress.step(
        `incident ${fresh} is reported, ${((performance.now() - start) / 1000).toFixed(1)} s after the fault`,
      );
      return fresh;
    }
    await sleep(500);
  }
  throw new LabError(
    `the crash world of ${name} did not report within ${options.waitSeconds} s; the end of its console:\n${consoleTail(name, 30)}`,
  );
}

async function freshIncident(
  name: string,
  known: readonly string[],
  seconds: number,
): Promise<string | undefined> {
  if (!(await answers(name, seconds))) return undefined;
  try {
    return (await reportedIncidents(name)).find((id) => !known.includes(id));
  } catch (error) {
    // The connection may have been made to the dying kernel.
    if (error instanceof LabError) return undefined;
    throw error;
  }
}

async function reportedIncidents(name: string): Promise<string[]> {
  const script = `ls -d ${INCIDENTS}/*/report.json 2>/dev/null; true`;
  const { stdout } = await execCaptured(name, ['sh', '-c', script], { timeoutSeconds: 20 });
  return stdout
    .split('\n')
    .map((path) => path.split('/').at(-2))
    .filter((id) => id !== undefined);
}
