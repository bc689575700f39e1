import { readClocks } from '../linux/readers/clocks.ts';
import { sleepDeadlines } from '../linux/readers/hrtimer-sleeper.ts';
import { runningTasks } from '../linux/readers/running-tasks.ts';
import { listTasks } from '../linux/readers/task-list.ts';
import { NSIG } from '../linux/signal.ts';
import type { CaptureResult } from '../model/group.ts';
import type { AllowedLosses } from '../model/loss.ts';
import type { Process } from '../model/process.ts';
import { type Moment, newFindings, ofTheMoment, type Refusal, refuseForNow } from '../model/verdict.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { LiveCpus } from './arch/index.ts';
import { attempt } from './attempt.ts';
import { Vforks } from './calls/vfork.ts';
import { Endings } from './endings/endings.ts';
import type { Disks } from './file-capture.ts';
import { CaptureContext } from './files/context.ts';
import { captureFiles } from './files/index.ts';
import { RingBudget } from './files/io-uring-state.ts';
import { FreePids } from './free-pids.ts';
import { type Candidate, judge, type LostProcess, type Terms } from './judge.ts';
import { MemoryCapture } from './memory/memory.ts';
import { memoryUsers } from './memory/memory-users.ts';
import { panickedTasks } from './panicked.ts';
import { forTheirProcedure } from './procedure/alone.ts';
import { captureProcess, knownIdentity, type ProcessSource, SharedIds } from './process.ts';
import { Homes, type SandboxRequest, wantedSandboxes } from './sandboxes.ts';
import { SeccompFilters } from './seccomp.ts';
import { sharedResources } from './shared-resources.ts';
import { type SelectedTasks, selectProcesses, type TaskGroup } from './tasks.ts';

export { stageZeroResult } from './arch/index.ts';
export { dependentSets, withoutDependent } from './dependent.ts';

/** Which processes to capture. */
export interface CaptureRequest extends Terms {
  /** Process ids of the initial PID namespace. */
  readonly roots: readonly number[];
  /** Whether children, and their children, are wanted too. */
  readonly includeDescendants: boolean;
  /** The disks of the dead system, if they are there: a deleted file may have a copy on them. */
  readonly disks?: Disks;
  /** What processes may lose instead of not coming back; without it, nothing. */
  readonly losses?: AllowedLosses;
  /**
   * Whoever is refused and has a crash procedure may come back for that alone. Its group has to get its
   * procedures (`applyCrashProcedures`): it has nothing else to run.
   */
  readonly forProcedures?: boolean;
  /** Without it no process in a mount namespace of its own comes back. */
  readonly services?: SandboxRequest;
  /** Descendants that are not wanted, though what others share with them is known: who looks is one. */
  readonly without?: ReadonlySet<number>;
}

/** A zombie comes back only with a status that CRIU can make again: it cuts exit codes to seven bits. */
function zombieProblem({ state, exitCode }: Process): string | undefined {
  if (state !== 'zombie') return undefined;
  const [signal, code] = [exitCode & 0x7f, exitCode >> 8];
  if (signal === 0 && code > 0x7f) return `has ended with exit code ${code}, which CRIU cannot give again`;
  // CRIU makes it kill itself, without a core, by any signal but the last (restore_one_zombie).
  if ((exitCode & 0x80) !== 0)
    return `has ended by signal ${signal} and dumped core, which CRIU cannot tell again`;
  return signal === NSIG ? `has ended by signal ${signal}, which CRIU cannot give again` : undefined;
}

/** Of a living kernel: what cannot be read of a process that runs on can be whole a moment later. */
function isMoving({ kernel, running }: ProcessSource, { threads }: TaskGroup): boolean {
  return kernel.isAlive && threads.some(({ address }) => running.cpuOf.has(address));
}

function captureAll(source: ProcessSource, groups: readonly TaskGroup[]): Candidate[] {
  return groups.map((group): Candidate => {
    const findings = newFindings();
    for (const reason of source.endings.problemsOf(group)) refuseForNow(findings, reason, 'passing');
    // What was found before something could not be read may be why.
    const refuse = (reason: string, moment: Moment | undefined) => {
      ofTheMoment(findings, moment, () => findings.reasons.push(reason));
    };
    const whereUnreadable = isMoving(source, group) ? 'passing' : undefined;
    const process =
      findings.reasons.length > 0
        ? undefined
        : attempt(refuse, () => captureProcess(source, group, findings), whereUnreadable);
    if (process === undefined) {
      return { ...knownIdentity(source.kernel, group), memory: undefined, findings, isLost: true };
    }
    const zombie = zombieProblem(process);
    if (zombie !== undefined) process.findings.reasons.push(zombie);
    return process;
  });
}

/** Processes that were not even found whole, as members of the groups that they belong to. */
function lostProcesses(refused: SelectedTasks['refused']): LostProcess[] {
  return refused.map(({ pid, ppid, comm, reasons }) => {
    const findings = newFindings();
    findings.reasons.push(...reasons);
    return { pid, ppid, pgid: -pid, sid: -pid, comm, memory: undefined, findings, isLost: true };
  });
}

/**
 * Captures processes of a dead kernel into plain groups that can be restored, and says of every other one why
 * it cannot. Nothing that a damaged process holds keeps the others from coming back, and a common structure
 * that is damaged (the list of tasks, the table of PIDs, timer queues) only those whose state follows from
 * it. Nothing is thrown for a damaged dump: without clocks or layouts every process is refused.
 */
export function captureProcesses(kernel: Kernel, request: CaptureRequest): CaptureResult {
  try {
    return capture(kernel, request);
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    const reasons = [`what all processes depend on cannot be read: ${error.message}`];
    return {
      ...{ notes: [], groups: [], ended: [], ties: new Map(), dependences: [] },
      refused: request.roots.map((pid) => ({ pid, comm: '', reasons })),
    };
  }
}

function capture(kernel: Kernel, request: CaptureRequest): CaptureResult {
  const list = listTasks(kernel);
  const selected = selectProcesses(kernel, list, request.roots, request.includeDescendants);
  const { groups, missing } = selected;
  const refused: Refusal[] = [];
  const none = list.isComplete ? 'there is no such process' : `cannot be found: ${list.damage.join('; ')}`;
  for (const pid of missing) refused.push({ pid, comm: '', reasons: [none] });
  const ids = new SharedIds();
  const clocks = readClocks(kernel);
  const running = runningTasks(kernel);
  const users = memoryUsers(kernel, list);
  const endings = new Endings({ kernel, list, memoryUsers: users }, groups, running);
  const isGone = (group: TaskGroup): boolean => endings.of(group)?.isZombie === false;
  const living = groups.filter((group) => group.threads.length > 0 && endings.of(group) === undefined);
  const tasks = living.map(({ pid, leader }) => ({
    pid,
    task: leader.address,
    filesId: ids.of(leader.files),
  }));
  const sandboxes = wantedSandboxes(kernel, list, request.services);
  const { disks, losses: allowedLosses } = request;
  const surroundings = { disks, ended: endings.tasks, sandboxes, allowedLosses };
  /** All files and what is shared, as they are for processes of which some come back for their procedure. */
  const lookAtFiles = (forProcedure: ReadonlySet<number>) => {
    const context = new CaptureContext(kernel, clocks, tasks, list, { ...surroundings, forProcedure });
    const files = captureFiles(context);
    for (const resource of sharedResources) resource.collect(context);
    return { context, files, memory: new MemoryCapture(kernel, files), forProcedure };
  };
  const { context, ...look } = lookAtFiles(new Set());
  const source = {
    ...look,
    freePids: new FreePids(kernel, groups),
    kernel,
    running,
    liveCpus: new LiveCpus(kernel),
    panicked: panickedTasks(kernel, running, groups),
    clocks,
    deadlines: sleepDeadlines(kernel),
    memoryUsers: users,
    seccomp: new SeccompFilters(kernel),
    vforks: new Vforks(kernel, groups, users, endings),
    endings,
    sandboxes,
    homes: new Homes(groups, sandboxes, kernel),
    ids,
  };
  const captured = captureAll(
    source,
    groups.filter((group) => !isGone(group) && request.without?.has(group.pid) !== true),
  );
  const budget = new RingBudget(request.timeLimitMinutes);
  const first = judge(source, [...captured, ...lostProcesses(selected.refused)], request, budget);
  const again = (pids: ReadonlySet<number>) => {
    const { context: _, ...other } = lookAtFiles(pids);
    const changed = { ...source, ...other };
    return { source: changed, capture: (wanted: readonly TaskGroup[]) => captureAll(changed, wanted) };
  };
  const result =
    request.forProcedures === true
      ? forTheirProcedure(first, groups, { terms: request, budget }, { kernel, files: look.files, again })
      : first;
  const notes = sharedResources.flatMap((resource) => resource.losses(context));
  const ended = groups.filter(isGone).map((group) => ({
    ...{ pid: group.pid, comm: group.leader.comm },
    notes: [endings.of(group)?.note ?? ''],
  }));
  return {
    ...{ groups: result.groups, refused: [...refused, ...result.refused] },
    ...{ ties: first.ties, dependences: look.files.dependences, ended, notes },
  };
}
