import { dentryName, dentryStruct } from '../../linux/dcache.ts';
import { fileAt } from '../../linux/file.ts';
import { mmStruct } from '../../linux/mm-types.ts';
import { UserMemory } from '../../linux/readers/user-memory.ts';
import { forEachVma } from '../../linux/readers/vma.ts';
import { MEMFD_PREFIX } from '../../linux/shmem.ts';
import { recordFileName } from '../../model/crash-procedure.ts';
import type { ProcessGroup } from '../../model/group.ts';
import type { Refusal } from '../../model/verdict.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { attempt } from '../attempt.ts';
import { captureCrashProcedures } from '../crash-procedure.ts';
import type { FileCapture } from '../file-capture.ts';
import type { RingBudget } from '../files/io-uring-state.ts';
import { type Candidate, type Judged, type JudgeSource, judge, type Terms } from '../judge.ts';
import type { TaskGroup } from '../tasks.ts';
import { procedureFitness } from './fitness.ts';

/** What a second look at some processes takes. */
export interface LookAgain {
  readonly kernel: Kernel;
  /** Those of the first look. */
  readonly files: FileCapture;
  /** Everything once more, these captured for their procedure alone. */
  again(pids: ReadonlySet<number>): {
    readonly source: JudgeSource;
    capture(groups: readonly TaskGroup[]): Candidate[];
  };
}

type Decided = Pick<Judged, 'groups' | 'refused'>;

/** Whether a process has mapped a file by the name of a record; what cannot be read is none. */
function mayHaveRecord(kernel: Kernel, { leader: { mm } }: TaskGroup): boolean {
  const isRecord = (file: bigint): boolean => {
    const { f_dentry = 0n } = file === 0n ? {} : (fileAt(kernel, file) ?? {});
    if (f_dentry === 0n) return false;
    return dentryName(kernel, kernel.bind(dentryStruct).at(f_dentry)) === MEMFD_PREFIX + recordFileName;
  };
  if (mm === 0n) return false;
  const areas = readable(() => [...forEachVma(kernel, kernel.bind(mmStruct).at(mm))]) ?? [];
  return areas.some(({ vm_file }) => readable(() => isRecord(vm_file)) === true);
}

/**
 * Looks once more at processes that are refused and have a crash procedure: without what no program expects
 * to lose they may come back for it alone. Only who shares nothing with another protected process does.
 * Throws nothing for a damaged dump: what was decided first stands.
 *
 * @param first what was decided of all
 * @param groups all processes that were found
 * @param budget of what was decided first
 * @returns the same with those who come back so; others keep their reasons, and are told why not even so
 */
export function forTheirProcedure(
  first: Judged,
  groups: readonly TaskGroup[],
  { terms, budget }: { readonly terms: Terms; readonly budget: RingBudget },
  look: LookAgain,
): Decided {
  const alone = groups.filter(({ pid }) => first.alone.includes(pid));
  const wanted = alone.filter((group) => mayHaveRecord(look.kernel, group));
  if (wanted.length === 0) return first;
  const notBack = new Map<number, string>();
  const refuse = (pids: readonly number[]) => (reason: string) => {
    for (const pid of pids) notBack.set(pid, reason);
  };
  const all = wanted.map(({ pid }) => pid);
  const back =
    attempt(refuse(all), () => {
      const { source, capture } = look.again(new Set(all));
      const second = judge(source, capture(wanted), terms, budget);
      for (const { pid, reasons } of second.refused) notBack.set(pid, reasons[0] ?? '');
      return second.groups.flatMap((group) => {
        const pids = group.processes.map(({ pid }) => pid);
        const outcome = attempt(refuse(pids), () => settle(look.kernel, source, group, { alone, first }));
        if (typeof outcome === 'string') refuse(pids)(outcome);
        return outcome === undefined || typeof outcome === 'string' ? [] : [outcome];
      });
    }) ?? [];
  const pids = new Set(back.map(({ id }) => id));
  // What they share with nobody is theirs, and not lost with the kernel: the first look is to know.
  for (const pid of pids) attempt(ignore, () => look.files.group(new Set([pid])));
  const refused = first.refused
    .filter(({ pid }) => !pids.has(pid))
    .map((refusal) => withReason(refusal, notBack.get(refusal.pid)));
  return { groups: [...first.groups, ...back], refused };
}

/** The parts of the second look count. */
function ignore(): void {}

function withReason(refusal: Refusal, problem: string | undefined): Refusal {
  if (problem === undefined) return refusal;
  const reason = `has a crash procedure, and cannot come back for it alone either: ${problem}`;
  return { ...refusal, reasons: [...refusal.reasons, reason] };
}

/** The group as it comes back, or why it does not. */
function settle(
  kernel: Kernel,
  { files }: JudgeSource,
  group: ProcessGroup,
  { alone, first }: { readonly alone: readonly TaskGroup[]; readonly first: Judged },
): ProcessGroup | string {
  const [process, ...others] = group.processes;
  const task = alone.find(({ pid }) => pid === process?.pid);
  if (process === undefined || task === undefined || others.length > 0) return 'belongs together with others';
  const tie = [...files.edges, ...files.dependences].find(({ pids }) => pids.includes(process.pid));
  if (tie !== undefined) return `is tied to another protected process (${tie.why})`;
  if (process.findings.unexpected.length === 0) return 'nothing tells what it would lose';
  const [record] = captureCrashProcedures(kernel, group);
  const user = new UserMemory(kernel, kernel.bind(mmStruct).at(task.leader.mm));
  const { restorers } = kernel.architecture.signalFrame;
  const isSandboxed = group.sandbox !== undefined;
  const fit = procedureFitness({ process, record, isSandboxed, user, restorers });
  if (typeof fit === 'string') return fit;
  const refusedFor = first.refused.find(({ pid }) => pid === process.pid)?.reasons ?? [];
  return { ...group, processes: [{ ...process, procedureAlone: { ...fit, refusedFor, isReady: false } }] };
}
