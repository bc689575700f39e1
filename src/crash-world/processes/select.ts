import { describeNamesakes, isNamesake, type Matchable, matchesRule } from '../../config/match.ts';
import { describeRule, type ProtectionRule } from '../../config/protection.ts';
import { cgroupPath } from '../../linux/cgroup.ts';
import { credStruct } from '../../linux/cred.ts';
import { resolvePath } from '../../linux/dcache.ts';
import { fileStruct } from '../../linux/fs.ts';
import { mmStruct } from '../../linux/mm-types.ts';
import { readArguments } from '../../linux/readers/arguments.ts';
import { listTasks } from '../../linux/readers/task-list.ts';
import { UserMemory } from '../../linux/readers/user-memory.ts';
import { taskAt } from '../../linux/sched.ts';
import { printableArguments } from '../../report/printable.ts';
import { NANOSECONDS_PER_TICK } from '../../system/abi.ts';
import { readable, VmcoreError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';

/** A process of the dead world, as far as rules look at it. */
export interface Candidate extends Matchable {
  readonly parentPid: number;
  readonly uid: number;
  /** Its arguments with blanks between them, at most 200 characters; absent if they are not in memory. */
  readonly commandLine?: string | undefined;
}

/**
 * All live processes with an address space: no kernel threads, no zombies. A process whose program or cgroup
 * cannot be read is listed without; one whose task cannot be read at all is left out and named in
 * `unreadable`, with what is wrong with the kernel's lists of processes.
 */
export function listCandidates(kernel: Kernel): { candidates: Candidate[]; unreadable: string[] } {
  const candidates: Candidate[] = [];
  const { tasks, lost, damage } = listTasks(kernel);
  const unreadable = [...damage, ...lost.map(({ pid, problem }) => `process ${pid}: ${problem}`)];
  for (const address of tasks) {
    try {
      const candidate = readCandidate(kernel, address);
      if (candidate !== undefined) candidates.push(candidate);
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      unreadable.push(`the task at 0x${address.toString(16)}: ${error.message}`);
    }
  }
  return { candidates, unreadable };
}

/** What rules look at of the process with this `task_struct`; undefined for a kernel thread or a zombie. */
export function readCandidate(kernel: Kernel, address: bigint): Candidate | undefined {
  const view = taskAt(kernel, address);
  const { mm } = view;
  if (mm === 0n) return undefined;
  const { uid, suid } = kernel.bind(credStruct).at(view.cred);
  return {
    pid: view.tgid,
    parentPid: taskAt(kernel, view.real_parent).tgid,
    comm: view.comm,
    exe: readable(() => exePath(kernel, mm)),
    uid,
    owner: uid === suid ? uid : undefined,
    commandLine: readable(() => commandLine(kernel, mm)),
    cgroup: readable(() => cgroupPath(kernel, address)),
    startTicks: Number(view.start_boottime / NANOSECONDS_PER_TICK),
  };
}

function exePath(kernel: Kernel, mm: bigint): string {
  const exe = kernel.bind(fileStruct).at(kernel.bind(mmStruct).at(mm).exe_file);
  return resolvePath(kernel, exe.f_mnt, exe.f_dentry).path;
}

/** As much of the arguments as tells processes of one name apart. */
const MOST_ARGUMENT_BYTES = 800;

function commandLine(kernel: Kernel, mm: bigint): string | undefined {
  const view = kernel.bind(mmStruct).at(mm);
  const bytes = readArguments(new UserMemory(kernel, view), view, MOST_ARGUMENT_BYTES);
  return bytes === undefined ? undefined : printableArguments(bytes);
}

/** A process that a rule names. */
export interface Selected {
  readonly candidate: Candidate;
  readonly rule: ProtectionRule;
}

/**
 * Which processes the rules name (their descendants are not listed), each with the first rule that names it,
 * and the rules that name none.
 */
export function selectByRules(
  rules: readonly ProtectionRule[],
  candidates: readonly Candidate[],
): { selected: Selected[]; unmatched: ProtectionRule[] } {
  const selected = candidates.flatMap((candidate) => {
    const rule = rules.find((other) => matchesRule(other, candidate));
    return rule === undefined ? [] : [{ candidate, rule }];
  });
  const unmatched = rules.filter((rule) => !candidates.some((candidate) => matchesRule(rule, candidate)));
  return { selected, unmatched };
}

/** Why a rule found nothing, for the report. */
export function explainUnmatched(rule: ProtectionRule, candidates: readonly Candidate[]): string {
  if (rule.kind !== 'pid') {
    const others = describeNamesakes(
      rule,
      candidates.filter((candidate) => isNamesake(rule, candidate)),
    );
    return others === '' ? describeRule(rule) : `${describeRule(rule)} (${others})`;
  }
  const other = candidates.find(({ pid }) => pid === rule.pid);
  const reused = other === undefined ? '' : ` (that pid was another process by then: ${other.comm})`;
  return `${describeRule(rule)} [${rule.comm}]${reused}`;
}
