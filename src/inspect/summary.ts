import { panicCpu } from '../linux/current.ts';
import { panicReason } from '../linux/panic.ts';
import { readLog } from '../linux/printk.ts';
import { readClocks } from '../linux/readers/clocks.ts';
import { listTasks } from '../linux/readers/task-list.ts';
import { taskAt } from '../linux/sched.ts';
import { utsNamespaceStruct } from '../linux/utsname.ts';
import { showText } from '../system/byte-text.ts';
import { PAGE_SIZE } from '../system/page.ts';
import { describeDumpLevel } from '../vmcore/dump-level.ts';
import { readable, VmcoreError } from '../vmcore/errors.ts';
import type { Kernel } from '../vmcore/kernel.ts';
import type { Inspection } from './inspection.ts';
import { commOf } from './tasks.ts';

const NANOSECONDS = 1e9;
const MIB = 2 ** 20;

/** One fact of the summary; a fact that cannot be read says why instead of stopping the others. */
type Attempt = <T>(what: string, read: () => T) => T | string;

function attemptInto(problems: string[]): Attempt {
  return (what, read) => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof VmcoreError)) throw error;
      problems.push(`${what} cannot be read: ${error.message}`);
      return `unreadable: ${error.message}`;
    }
  };
}

/** A living kernel may have survived an oops; one that died says so by the CPU that panicked. */
function panicMessage(kernel: Kernel, problems: string[]): string {
  const { records, damage } = readLog(kernel);
  if (damage !== undefined) problems.push(`the log is incomplete: ${damage}`);
  const reason = panicReason(records);
  const hasDied = panicCpu(kernel) !== undefined;
  if (hasDied) return reason ?? `no reason in the log${damage === undefined ? '' : ` (${damage})`}`;
  const alive = `none: the kernel ${kernel.isAlive ? 'is' : 'was'} alive`;
  return reason === undefined ? alive : `${alive} after "${reason}"`;
}

/** Processes and kernel threads, and, of a damaged kernel, processes that cannot be read. */
function taskCounts(
  kernel: Kernel,
  problems: string[],
): { processes: number; kernelThreads: number; unreadable: number } {
  const { tasks, lost, damage } = listTasks(kernel);
  problems.push(...damage);
  const counts = { processes: 0, kernelThreads: 0, unreadable: lost.length };
  for (const task of tasks) {
    const mm = readable(() => taskAt(kernel, task).mm);
    counts[mm === undefined ? 'unreadable' : mm === 0n ? 'kernelThreads' : 'processes']++;
  }
  if (counts.unreadable > 0) problems.push(`${counts.unreadable} processes cannot be read`);
  return counts;
}

function clocks(kernel: Kernel): { date: string; uptimeSeconds: number } {
  const { realtime, boottime } = readClocks(kernel);
  return {
    date: new Date(Number(realtime / 1_000_000n)).toISOString(),
    uptimeSeconds: Math.floor(Number(boottime) / NANOSECONDS),
  };
}

/** What runs on each CPU: `runqueues.curr`. */
function running(kernel: Kernel): string[] {
  const offset = kernel.layouts.member('rq', 'curr')?.offsetBytes;
  if (offset === undefined) return [];
  return kernel.cpus.map((cpu) => {
    const task = taskAt(kernel, kernel.memory.pointer(kernel.perCpu('runqueues', cpu) + BigInt(offset)));
    return `${cpu}: ${commOf(task)} (${task.pid})`;
  });
}

function facts(kernel: Kernel, problems: string[]) {
  const attempt = attemptInto(problems);
  const uts = kernel.bind(utsNamespaceStruct).at(kernel.symbol('init_uts_ns'));
  const bytes = kernel.physical.ranges.reduce((sum, { length }) => sum + length, 0);
  return {
    file: kernel.path,
    release: kernel.release,
    version: attempt('the version', () => showText(uts.version)),
    machine: attempt('the machine', () => showText(uts.machine)),
    nodename: attempt('the nodename', () => showText(uts.nodename)),
    buildId: kernel.vmcoreinfo.get('BUILD-ID') ?? '',
    kaslrOffset: `0x${kernel.vmcoreinfo.get('KERNELOFFSET') ?? '0'}`,
    pageTableLevels: kernel.memory.addressSpace.table.levels,
    memoryMib: Math.round(bytes / MIB),
    highestFrame:
      ((kernel.physical.ranges.at(-1)?.physical ?? 0) + (kernel.physical.ranges.at(-1)?.length ?? 0)) /
      PAGE_SIZE,
    cpus: attempt('the number of CPUs', () => kernel.cpus.length),
    running: attempt('what was running', () => running(kernel)),
    clocks: attempt('the clocks', () => clocks(kernel)),
    tasks: attempt('the list of tasks', () => taskCounts(kernel, problems)),
    panic: attempt('the panic', () => panicMessage(kernel, problems)),
    leftOut: describeDumpLevel(kernel.dumpLevel),
    warnings: kernel.warnings,
  };
}

function uptimeText(seconds: number): string {
  const [days, hours, minutes] = [
    Math.floor(seconds / 86400),
    Math.floor(seconds / 3600) % 24,
    Math.floor(seconds / 60) % 60,
  ];
  const clock = [hours, minutes, seconds % 60].map((part) => String(part).padStart(2, '0')).join(':');
  return days === 0 ? clock : `${days} days, ${clock}`;
}

/** What one looks at first: which kernel, which machine, what it was doing, how it died. */
export function summaryInspection(kernel: Kernel): Inspection {
  const problems: string[] = [];
  const all = facts(kernel, problems);
  const lines = (): [string, string][] => [
    ['file', all.file],
    ['kernel', `${all.release} (${all.machine})`],
    ['version', all.version],
    ['build id', all.buildId],
    ['node', all.nodename],
    ['memory', `${all.memoryMib} MiB in ${kernel.physical.ranges.length} ranges`],
    ...(all.leftOut === undefined ? [] : [['left out', all.leftOut] as [string, string]]),
    ['address space', `${all.pageTableLevels} levels, kernel moved by ${all.kaslrOffset}`],
    ['CPUs', String(all.cpus)],
    ['running', typeof all.running === 'string' ? all.running : all.running.join(', ')],
    ['date', typeof all.clocks === 'string' ? all.clocks : all.clocks.date],
    ['uptime', typeof all.clocks === 'string' ? all.clocks : uptimeText(all.clocks.uptimeSeconds)],
    [
      'tasks',
      typeof all.tasks === 'string'
        ? all.tasks
        : `${all.tasks.processes} processes, ${all.tasks.kernelThreads} kernel threads` +
          (all.tasks.unreadable === 0 ? '' : `, ${all.tasks.unreadable} that cannot be read`),
    ],
    ['panic', all.panic],
    ...all.warnings.map((warning): [string, string] => ['warning', warning]),
  ];
  return {
    problems: [...kernel.warnings, ...problems],
    json: () => all,
    text: () =>
      lines()
        .map(([name, value]) => `${name.padEnd(14)} ${value}`)
        .join('\n'),
  };
}
