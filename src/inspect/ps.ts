import type { Kernel } from '../vmcore/kernel.ts';
import { type Report, table } from './report.ts';
import { listProcesses, type ProcessRow } from './tasks.ts';

function cells(row: ProcessRow): (string | number)[] {
  const name = row.isKernelThread ? `[${row.comm}]` : row.comm;
  const rss = row.rssKib === undefined ? '-' : String(row.rssKib);
  const cpu = `${row.running ? '>' : ''}${row.cpu ?? '-'}`;
  return [row.pid, row.ppid, row.threads, cpu.padStart(3), row.state, rss.padStart(8), name];
}

/** All processes, as `ps` would have shown them; `>` marks what was on a CPU. RSS is in KiB. */
export function psReport(kernel: Kernel): Report {
  const { rows, unreadable, damage } = listProcesses(kernel);
  return {
    json: () => ({ processes: rows, unreadable, damage }),
    text: () =>
      [
        table(['PID', 'PPID', 'THR', 'CPU', 'ST', '     RSS', 'COMMAND'], rows.map(cells)),
        ...unreadable.map(({ task, problem }) => `${task}: ${problem}`),
      ].join('\n'),
    problems: [...damage, ...unreadable.map(({ task, problem }) => `${task}: ${problem}`)],
  };
}
