import { panicCpu, type RunningTasks, runningTasks } from '../linux/current.ts';
import { findPid, longestFreeRange, usedNumbers } from '../linux/pid.ts';
import { readClocks } from '../linux/readers/clocks.ts';
import { sleepDeadlines } from '../linux/readers/hrtimer-sleeper.ts';
import { listTasks } from '../linux/readers/task-list.ts';
import { NSIG } from '../linux/signal.ts';
import type { CaptureResult, ProcessGroup } from '../model/group.ts';
import type { AllowedLosses } from '../model/loss.ts';
import type { Process } from '../model/process.ts';
import {
  type Moment,
  momentOf,
  newFindings,
  ofTheMoment,
  type Refusal,
  refusalOf,
  refuseForNow,
  together,
} from '../model/verdict.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { LiveCpus } from './arch/index.ts';
import { Vforks } from './calls/vfork.ts';
import { Endings } from './endings/endings.ts';
import type { Disks } from './file-capture.ts';
import { CaptureContext } from './files/context.ts';
import { captureFiles, FileRefusal } from './files/index.ts';
import { groupProcesses, type Member } from './groups.ts';
import { MemoryCapture } from './memory/memory.ts';
import { memoryUsers } from './memory/memory-users.ts';
import { captureProcess, knownIdentity, type ProcessSource, SharedIds } from './process.ts';
import { captureSandbox } from './sandbox.ts';
import { type Home, Homes, type SandboxRequest, wantedSandboxes } from './sandboxes.ts';
import { SeccompFilters } from './seccomp.ts';
import { sharedResources } from './shared-resources.ts';
import { type SelectedTasks, selectProcesses, type TaskGroup } from './tasks.ts';

export { stageZeroResult } from './arch/index.ts';

/** Which processes to capture. */
export interface CaptureRequest {
  /** Process ids of the initial PID namespace. */
  readonly roots: readonly number[];
  /** Whether children, and their children, are wanted too. */
  readonly includeDescendants: boolean;
  /** The disks of the dead system, if they are there: a deleted file may have a copy on them. */
  readonly disks?: Disks;
  /** What processes may lose instead of not coming back; without it, nothing. */
  readonly losses?: AllowedLosses;
  /** Without it no process in a mount namespace of its own comes back. */
  readonly services?: SandboxRequest;
  /**
   * Groups are captured in spite of reasons of the moment, which are then in their processes' findings: of a
   * living kernel.
   */
  readonly inSpiteOfMoments?: boolean;
  /** Descendants that are not wanted, though what others share with them is known: who looks is one. */
  readonly without?: ReadonlySet<number>;
}

/**
 * Runs a part of the capture; an error in reading the dump becomes a reason against the process, which is of
 * the moment `whereUnreadable`.
 */
function attempt<T>(
  refuse: (reason: string, moment: Moment | undefined) => void,
  part: () => T,
  whereUnreadable?: Moment,
): T | undefined {
  try {
    return part();
  } catch (error) {
    if (error instanceof FileRefusal) {
      refuse(error.reason, error.moment);
      return undefined;
    }
    if (!(error instanceof VmcoreError)) throw error;
    refuse(`cannot be read: ${error.message}`, whereUnreadable);
    return undefined;
  }
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

/** A process that cannot be captured: those who belong together with it cannot come back either. */
interface LostProcess extends Member {
  readonly isLost: true;
}

type Candidate = Process | LostProcess;

function isWhole(candidate: Candidate): candidate is Process {
  return !('isLost' in candidate);
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
 * Hands out process ids that nobody has, from the end of the longest free range: the crash world's own
 * processes begin at its other end.
 */
class FreePids {
  readonly #kernel: Kernel;
  readonly #known: ReadonlySet<number>;
  #next: number;

  /**
   * `groups` are all that comes back: their numbers must be left free even if the table of PIDs cannot be
   * read.
   */
  constructor(kernel: Kernel, groups: readonly TaskGroup[]) {
    this.#kernel = kernel;
    this.#known = new Set(groups.flatMap(({ allThreads }) => allThreads.map(({ pid }) => pid)));
    this.#next = longestFreeRange([...usedNumbers(kernel).numbers, ...this.#known]).last;
  }

  next(): number {
    while (this.#isTaken(this.#next)) this.#next--;
    return this.#next--;
  }

  #isTaken(pid: number): boolean {
    if (this.#known.has(pid)) return true;
    try {
      return findPid(this.#kernel, pid) !== undefined;
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      return false;
    }
  }
}

/** The tasks whose system calls may have killed the kernel. */
function panickedTasks(kernel: Kernel, { cpuOf }: RunningTasks): ReadonlySet<bigint> {
  const cpu = panicCpu(kernel);
  if (cpu === undefined) return new Set();
  const there = [...cpuOf].filter(([, on]) => on === cpu).map(([task]) => task);
  return new Set(there.length > 0 ? there : cpuOf.keys());
}

/** Whether it is because of this one that its group cannot come back. */
function isCulprit(candidate: Candidate, { inSpiteOfMoments = false }: CaptureRequest): boolean {
  const { findings } = candidate;
  if (findings.reasons.length === 0) return false;
  return !(inSpiteOfMoments && isWhole(candidate) && momentOf(findings) !== undefined);
}

/** Splits groups into those that can come back and those with a process that cannot. */
function judge(
  source: ProcessSource & { readonly freePids: FreePids; readonly homes: Homes },
  candidates: readonly Candidate[],
  request: CaptureRequest,
): Omit<CaptureResult, 'notes' | 'ended'> {
  const { groups, ties } = groupProcesses(candidates, source.files.edges);
  const refused: Refusal[] = [];
  const kept: ProcessGroup[] = [];
  for (const members of groups) {
    const culprits = members.filter((member) => isCulprit(member, request));
    const processes = members.filter(isWhole);
    const pids = new Set(members.map(({ pid }) => pid));
    const refuse = (reason: string) => {
      for (const { pid, comm } of members) refused.push({ pid, comm, reasons: [reason] });
    };
    const home = source.homes.of(pids);
    if (home === 'several') {
      refuse(source.homes.reason(pids));
      continue;
    }
    if (culprits.length === 0 && processes.length === members.length) {
      const captured = attempt(refuse, () => groupParts(source, pids, home));
      if (captured === undefined) continue;
      const id = members[0]?.pid ?? 0;
      kept.push({ id, freePid: source.freePids.next(), processes, ...captured, clocks: source.clocks });
      continue;
    }
    // Who is tied to others comes back when these do.
    const moment = together(culprits.map(({ findings }) => momentOf(findings)));
    for (const member of members) {
      const { pid, findings } = member;
      if (!culprits.includes(member))
        ofTheMoment(findings, moment, () =>
          findings.reasons.push(tiedTo(pid, culprits, ties.get(pid) ?? [])),
        );
      refused.push(refusalOf(member, findings));
    }
  }
  return { groups: kept, refused, ties };
}

/** What a group has besides its processes. */
function groupParts(
  { kernel, files }: ProcessSource,
  pids: ReadonlySet<number>,
  home: Home | undefined,
): Omit<ProcessGroup, 'id' | 'freePid' | 'processes' | 'clocks'> {
  const group = files.group(pids);
  if (home === undefined) return group;
  const { sandbox, files: own } = captureSandbox(kernel, home, pids);
  const { directoriesToMake, filesToMake, ...others } = group.files;
  const made = {
    directoriesToMake: byPath([...directoriesToMake, ...own.directoriesToMake]),
    filesToMake: byPath([...filesToMake, ...own.filesToMake]),
  };
  return { ...group, files: { ...others, ...made }, sandbox };
}

function byPath<T extends { readonly path: string }>(items: readonly T[]): T[] {
  const unique = [...new Map(items.map((item) => [item.path, item])).values()];
  return unique.toSorted((a, b) => a.path.length - b.path.length);
}

function tiedTo(
  pid: number,
  culprits: readonly Member[],
  ties: readonly { pids: readonly [number, number]; why: string }[],
): string {
  for (const { pids, why } of ties) {
    const other = pids[0] === pid ? pids[1] : pids[0];
    const culprit = culprits.find((process) => process.pid === other);
    if (culprit !== undefined) return `is tied to ${other} (${culprit.comm}; ${why}), which cannot come back`;
  }
  return `belongs together with ${culprits.map(({ pid: other, comm }) => `${other} (${comm})`).join(', ')}, which cannot come back`;
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
      ...{ notes: [], groups: [], ended: [], ties: new Map() },
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
  const context = new CaptureContext(kernel, clocks, tasks, list, surroundings);
  const files = captureFiles(context);
  for (const resource of sharedResources) resource.collect(context);
  const source = {
    freePids: new FreePids(kernel, groups),
    kernel,
    running,
    liveCpus: new LiveCpus(kernel),
    panicked: panickedTasks(kernel, running),
    clocks,
    deadlines: sleepDeadlines(kernel),
    files,
    memory: new MemoryCapture(kernel, files),
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
  const result = judge(source, [...captured, ...lostProcesses(selected.refused)], request);
  const notes = sharedResources.flatMap((resource) => resource.losses(context));
  const ended = groups.filter(isGone).map((group) => ({
    ...{ pid: group.pid, comm: group.leader.comm },
    notes: [endings.of(group)?.note ?? ''],
  }));
  return { ...result, refused: [...refused, ...result.refused], ended, notes };
}
