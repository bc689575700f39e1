import { panicCpu, runningTasks } from '../linux/current.ts';
import { sleepDeadlines } from '../linux/hrtimer-sleeper.ts';
import { findPid, forEachTask } from '../linux/pid.ts';
import { taskAt } from '../linux/sched.ts';
import { readClocks } from '../linux/timekeeping.ts';
import type { CaptureResult, ProcessGroup } from '../model/group.ts';
import type { Process } from '../model/process.ts';
import type { Refusal } from '../model/verdict.ts';
import { VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import { captureFiles, FileRefusal } from './files/index.ts';
import { groupProcesses } from './groups.ts';
import { MemoryCapture } from './memory.ts';
import { captureProcess, type ProcessSource, SharedIds } from './process.ts';
import { selectProcesses, type TaskGroup } from './tasks.ts';

/** Which processes to capture. */
export interface CaptureRequest {
  /** Process ids of the initial PID namespace. */
  readonly roots: readonly number[];
  /** Whether children, and their children, are wanted too. */
  readonly includeDescendants: boolean;
}

/** The crash kernel gives its processes ids from 200000 on (kernel.ns_last_pid). */
const HIGHEST_FREE_PID = 199_999;

/** Runs a part of the capture; an error in reading the dump becomes a reason against the process. */
function attempt<T>(refuse: (reason: string) => void, part: () => T): T | undefined {
  try {
    return part();
  } catch (error) {
    if (error instanceof FileRefusal) {
      refuse(error.reason);
      return undefined;
    }
    if (!(error instanceof VmcoreError)) throw error;
    refuse(`cannot be read: ${error.message}`);
    return undefined;
  }
}

/** A zombie comes back only with a status that CRIU can make again: it cuts exit codes to seven bits. */
function zombieProblem({ state, exitCode }: Process): string | undefined {
  if (state !== 'zombie') return undefined;
  const [signal, code] = [exitCode & 0x7f, exitCode >> 8];
  return signal === 0 && code > 0x7f
    ? `has ended with exit code ${code}, which CRIU cannot give again`
    : undefined;
}

function captureAll(source: ProcessSource, groups: readonly TaskGroup[], refused: Refusal[]): Process[] {
  return groups.flatMap((group) => {
    const refuse = (reason: string) =>
      refused.push({ pid: group.pid, comm: group.leader.comm, reasons: [reason] });
    const process = attempt(refuse, () => captureProcess(source, group));
    if (process === undefined) return [];
    const zombie = zombieProblem(process);
    if (zombie !== undefined) process.findings.reasons.push(zombie);
    return [process];
  });
}

/** Hands out process ids that nobody has, from below those of the crash world's own processes. */
class FreePids {
  readonly #kernel: Kernel;
  #next = HIGHEST_FREE_PID;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  next(): number {
    while (findPid(this.#kernel, this.#next) !== undefined) this.#next--;
    return this.#next--;
  }
}

/** Who uses which address space. A task list that is damaged is read as far as it goes. */
function memoryUsers(kernel: Kernel): Map<bigint, number[]> {
  const users = new Map<bigint, number[]>();
  try {
    for (const address of forEachTask(kernel)) {
      const { mm, tgid } = taskAt(kernel, address);
      if (mm !== 0n) users.set(mm, [...(users.get(mm) ?? []), tgid]);
    }
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
  }
  return users;
}

/** Splits groups into those that can come back and those with a process that cannot. */
function judge(
  source: ProcessSource & { readonly freePids: FreePids },
  processes: readonly Process[],
  lost: ReadonlySet<number>,
): { groups: ProcessGroup[]; refused: Refusal[] } {
  const { groups, ties } = groupProcesses(processes, source.files.edges);
  const refused: Refusal[] = [];
  const kept: ProcessGroup[] = [];
  for (const members of groups) {
    const culprits = members.filter(({ findings, ppid }) => findings.reasons.length > 0 || lost.has(ppid));
    if (culprits.length === 0) {
      const pids = new Set(members.map(({ pid }) => pid));
      const { files, sharedMemory } = source.files.groupFiles(pids);
      const freePid = source.freePids.next();
      kept.push({
        id: members[0]?.pid ?? 0,
        freePid,
        processes: members,
        files,
        sharedMemory,
        clocks: source.clocks,
      });
      continue;
    }
    for (const { pid, comm, findings, ppid } of members) {
      const own = lost.has(ppid)
        ? [...findings.reasons, `its parent ${ppid} cannot come back`]
        : findings.reasons;
      refused.push({
        pid,
        comm,
        reasons: own.length > 0 ? own : [tiedTo(pid, culprits, ties.get(pid) ?? [])],
      });
    }
  }
  return { groups: kept, refused };
}

function tiedTo(
  pid: number,
  culprits: readonly Process[],
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
 * Captures processes of a dead kernel into plain groups that can be restored, and says of every other one why it cannot. Nothing that a
 * damaged process holds keeps the others from coming back. Throws a VmcoreError only if the kernel's common structures
 * (clocks, PID table) cannot be read.
 */
export function captureProcesses(kernel: Kernel, request: CaptureRequest): CaptureResult {
  const refused: Refusal[] = [];
  const { groups, missing } = selectProcesses(kernel, request.roots, request.includeDescendants);
  for (const pid of missing) refused.push({ pid, comm: '', reasons: ['there is no such process'] });
  const ids = new SharedIds();
  const clocks = readClocks(kernel);
  const living = groups.filter(({ threads }) => threads.length > 0);
  const files = captureFiles(
    kernel,
    living.map(({ pid, leader }) => ({ pid, task: leader.address, filesId: ids.of(leader.files) })),
    clocks,
  );
  const running = runningTasks(kernel);
  const cpu = panicCpu(kernel);
  const panicked = [...running].find(([, on]) => on === cpu)?.[0];
  const memory = new MemoryCapture(kernel, files);
  const source = {
    freePids: new FreePids(kernel),
    kernel,
    running,
    panicked,
    clocks,
    deadlines: sleepDeadlines(kernel),
    files,
    memory,
    memoryUsers: memoryUsers(kernel),
    ids,
  };
  const processes = captureAll(source, groups, refused);
  const lost = new Set(refused.map(({ pid }) => pid));
  const result = judge(source, processes, lost);
  return { groups: result.groups, refused: [...refused, ...result.refused] };
}
