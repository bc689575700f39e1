import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, constants, openSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { inNamespacesOf } from '../../system/namespaces.ts';
import { personality } from '../../system/process-settings.ts';
import { messageOf } from '../../system/thrown.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { RESTORE_LOG } from './names.ts';
import type { Where } from './own-make/open-directory.ts';
import { type CriuSteps, preparePreResume } from './pre-resume.ts';
import type { RestoreCgroup } from './restore-cgroup.ts';

/** How `criu restore` is run. */
export interface CriuOptions {
  /** The command and its first arguments; `criu` from the search path if not given. */
  readonly command?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** More options for `criu restore`. */
  readonly extra?: readonly string[];
  /**
   * After this long `criu` is killed, with everything that it had made so far. Default: two minutes, and more
   * for much that is in the images, and for many descriptors, areas, connections and threads.
   */
  readonly timeoutSeconds?: number;
  /** What that may be at most, and why: others wait for their turn. */
  readonly most?: MostTime;
  /** The sandbox that it is run in; without one, where this program is. */
  readonly inside?: Inside;
}

/** The longest time that one run of CRIU is left. */
export interface MostTime {
  readonly seconds: number;
  /** What the time is; continues "... s,": `a part of what is left of time-limit-minutes`. */
  readonly why: string;
}

/** Namespaces to run CRIU in. */
export interface Inside extends Where {
  /**
   * The directory of the command, which nobody has to find in there, nor may be allowed to execute there: it
   * is reached through a descriptor.
   */
  readonly programs: string;
}

/** What became of a run of CRIU. */
export interface CriuEnd {
  /** All processes are made, and frozen. */
  readonly held: boolean;
  /** `status 1` */
  readonly status: string;
  /** Why CRIU was ended, if it was: `did not end within 120 s`. */
  readonly endedFor?: string;
}

const LEAST_TIMEOUT_SECONDS = 120;
/** A tenth of what a slow disk reads. */
const SLOWEST_BYTES_PER_SECOND = 10 * 2 ** 20;
/** Each costs CRIU system calls and lines in its log; see `entries` of the plan. */
const SLOWEST_ENTRIES_PER_SECOND = 100;
/** What is killed ends at once, unless the kernel itself is stuck: in a disk that does not answer. */
const KILL_MILLISECONDS = 10_000;

/**
 * How long CRIU may take for the images in a directory before it counts as stuck. Their bytes are content,
 * which is read at once, whatever it is of: memory, deleted files, what waits in pipes and sockets.
 */
export function defaultTimeoutSeconds(directory: string, { entries }: Pick<RestorePlan, 'entries'>): number {
  const images = readdirSync(directory).filter((name) => name.endsWith('.img'));
  const bytes = images.reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
  const seconds = bytes / SLOWEST_BYTES_PER_SECOND + entries / SLOWEST_ENTRIES_PER_SECOND;
  return LEAST_TIMEOUT_SECONDS + Math.ceil(seconds);
}

/** How long CRIU is left, and what is said of it if it takes longer. */
function timeFor(
  directory: string,
  plan: RestorePlan,
  { timeoutSeconds = defaultTimeoutSeconds(directory, plan), most }: CriuOptions,
): { readonly seconds: number; readonly late: string } {
  if (most === undefined || timeoutSeconds <= most.seconds)
    return { seconds: timeoutSeconds, late: `it did not end within ${timeoutSeconds} s` };
  return { seconds: most.seconds, late: `it did not end within ${most.seconds} s, ${most.why}` };
}

/**
 * Starts CRIU in the cgroup. Children get the personality of whoever forks them, and CRIU does not set it.
 */
function start(
  args: readonly string[],
  { command = ['criu'], env = process.env, inside }: CriuOptions,
  plan: RestorePlan,
  fds: readonly number[],
  cgroup: RestoreCgroup,
): ChildProcess {
  const [program = 'criu', ...first] = command;
  const before = personality(0xffff_ffff);
  const run = () =>
    spawn(program, [...first, ...args], { env, stdio: ['ignore', 'ignore', 'ignore', ...fds] });
  personality(plan.personality);
  try {
    return cgroup.startIn(() => (inside === undefined ? run() : inNamespacesOf(inside.pid, run)));
  } finally {
    personality(before);
  }
}

/**
 * Runs `criu restore` in a cgroup of its own, and has it freeze what it has restored in the moment before
 * that would run. When this returns, CRIU has ended; whoever else is in the cgroup is frozen, or, if the
 * restore failed, to be ended.
 *
 * @param resources descriptors for CRIU, from 3 on, and the options that say what they are; `begin` is called
 * before CRIU makes anything
 */
export async function runCriu(
  directory: string,
  plan: RestorePlan,
  cgroup: RestoreCgroup,
  resources: {
    readonly fds: readonly number[];
    readonly options: readonly string[];
    readonly begin?: () => void;
  },
  options: CriuOptions,
): Promise<CriuEnd> {
  const { extra = [] } = options;
  const { seconds, late } = timeFor(directory, plan, options);
  const kill = new Kill(cgroup);
  let child: ChildProcess | undefined;
  const view = viewOf(directory, options);
  const attempt = (step: () => void, problem: string): boolean => {
    try {
      step();
      return true;
    } catch (error) {
      kill.because(`${problem}${messageOf(error)}`);
      return false;
    }
  };
  const steps: CriuSteps = {
    begin: () => attempt(() => resources.begin?.(), ''),
    hold: (waiting) => {
      const criu = child?.pid === undefined ? waiting : [child.pid, ...waiting];
      return attempt(() => cgroup.freeze(criu), 'its processes cannot be held: ');
    },
  };
  const preResume = preparePreResume(directory, steps, view.images);
  const args = ['restore', '--images-dir', view.images, '--restore-detached', '--manage-cgroups=ignore'];
  args.push('--log-file', RESTORE_LOG, '-v4', ...plan.options, ...resources.options, ...preResume.options);
  const timer = setTimeout(() => kill.because(late), seconds * 1000);
  try {
    child = start([...args, ...extra], { ...options, command: view.command }, plan, resources.fds, cgroup);
    const { ok, status } = await Promise.race([endOf(child), kill.failed]);
    const held = preResume.finish();
    if (kill.reason !== undefined) return { held: false, status, endedFor: kill.reason };
    const silent = ok && !held ? 'status 0 without having stopped before its processes run' : status;
    return { held: ok && held, status: silent };
  } finally {
    clearTimeout(timer);
    for (const fd of view.fds) closeSync(fd);
    preResume.finish();
    kill.done();
  }
}

/** How CRIU sees what is its own. */
interface View {
  /** The directory of the images. */
  readonly images: string;
  readonly command: readonly string[];
  /** Descriptors of ours that this leads through, to be closed when CRIU has ended. */
  readonly fds: readonly number[];
}

/**
 * In a sandbox neither the images nor the programs need be seen: both are reached through descriptors. They
 * are this program's, because CRIU closes those that it has before it runs its action script.
 */
function viewOf(directory: string, { command = ['criu'], inside }: CriuOptions): View {
  if (inside === undefined) return { images: directory, command, fds: [] };
  const fds = [directory, inside.programs].map((path) => openSync(path, constants.O_RDONLY));
  const [images = '', programs = ''] = fds.map((fd) => `/proc/${process.pid}/fd/${fd}`);
  const seen = command.map((part) =>
    part.startsWith(`${inside.programs}/`) ? `${programs}${part.slice(inside.programs.length)}` : part,
  );
  return { images, command: seen, fds };
}

/** Ends a run of CRIU, once. */
class Kill {
  readonly #cgroup: RestoreCgroup;
  readonly #failed = Promise.withResolvers<{ ok: boolean; status: string }>();
  #timer: NodeJS.Timeout | undefined;
  reason: string | undefined;

  constructor(cgroup: RestoreCgroup) {
    this.#cgroup = cgroup;
  }

  /** Fulfilled when CRIU was killed and is there still. */
  get failed(): Promise<{ ok: boolean; status: string }> {
    return this.#failed.promise;
  }

  because(reason: string): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.#cgroup.kill();
    const stuck = { ok: false, status: 'nothing, and cannot be killed' };
    this.#timer = setTimeout(() => this.#failed.resolve(stuck), KILL_MILLISECONDS);
  }

  done(): void {
    clearTimeout(this.#timer);
  }
}

function endOf(child: ChildProcess): Promise<{ ok: boolean; status: string }> {
  return new Promise((resolve) => {
    child.on('error', (error) => resolve({ ok: false, status: error.message }));
    child.on('exit', (code, signal) => resolve({ ok: code === 0, status: signal ?? `status ${code}` }));
  });
}
