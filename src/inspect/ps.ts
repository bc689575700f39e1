import type { Kernel } from '../vmcore/kernel.ts';
import { alignedTable, type Inspection } from './inspection.ts';
import { listProcesses, type ProcessRow } from './tasks.ts';

function cells(row: ProcessRow): (string | number)[] {
  const name = row.isKernelThread ? `[${row.comm}]` : row.comm;
  const rss = String(row.rssKib ?? (row.hasMemory ? '?' : '-'));
  const cpu = `${row.running ? '>' : ''}${row.cpu ?? '-'}`;
  const mark = row.problem === undefined ? '' : ` --- ${row.problem}`;
  return [row.pid, row.ppid, row.threads, cpu.padStart(3), row.state, rss.padStart(8), name + mark];
}

/** All processes, as `ps` would have shown them; `>` marks what was on a CPU. RSS is in KiB. */
export function psInspection(kernel: Kernel): Inspection {
  const { rows, unreadable, damage } = listProcesses(kernel);
  const lost = unreadable.map(({ task, problem }) => `${task} cannot be read: ${problem}`);
  const doubtful = rows.flatMap(({ pid, comm, problem }) =>
    problem === undefined ? [] : [`process ${pid} (${comm}): ${problem}`],
  );
  return {
    json: () => ({ processes: rows, unreadable, damage }),
    text: () =>
      [
        alignedTable(['PID', 'PPID', 'THR', 'CPU', 'ST', '     RSS', 'COMMAND'], rows.map(cells)),
        ...lost.map((sentence) => `--- ${sentence}`),
      ].join('\n'),
    problems: [...damage, ...lost, ...doubtful],
  };
}
