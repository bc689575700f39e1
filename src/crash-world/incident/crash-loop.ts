import type { Config } from '../../config/schema.ts';
import { listIncidents, loadReport } from '../../report/incident.ts';
import type { IncidentReport, PanicReport } from '../../report/schema.ts';
import { messageOf } from '../../system/thrown.ts';

/** What ran on the CPU that panicked. */
export type PanickingProcess = NonNullable<PanicReport['process']>;

/** Reports of earlier incidents that can be read; a sentence for each that cannot. */
export function earlierReports(
  current: string,
  incidents: string,
): { readonly reports: IncidentReport[]; readonly problems: string[] } {
  const reports: IncidentReport[] = [];
  const problems: string[] = [];
  for (const id of listIncidents(incidents).filter((other) => other !== current)) {
    try {
      reports.push(loadReport(id, incidents));
    } catch (error) {
      const why = messageOf(error);
      problems.push(`the incident ${id} does not count for crash loops: ${why}`);
    }
  }
  return { reports, problems };
}

/**
 * Why the process that was on the panicking CPU is not brought back once more: it was there in as many
 * incidents, within as short a time, as the configuration allows. After a reboot it has another pid, so it is
 * known by program, name and user.
 * @param earlier reports of the incidents before this one
 * @returns undefined if it may come back
 */
export function crashLoop(
  panic: PanicReport,
  earlier: readonly IncidentReport[],
  config: Config,
): string | undefined {
  const { incidents, 'within-minutes': minutes } = config['crash-loop'];
  const { process } = panic;
  if (process === undefined) return undefined;
  const since = Date.parse(panic.at) - minutes * 60_000;
  const alike = earlier.filter(
    (report) =>
      report.panic?.process !== undefined &&
      isSame(report.panic.process, process) &&
      Date.parse(report.panic.at) >= since &&
      Date.parse(report.panic.at) <= Date.parse(panic.at),
  );
  const count = alike.length + 1;
  if (count < incidents) return undefined;
  return `was on the panicking CPU in ${count} incidents within ${minutes} minutes, this one included`;
}

function isSame(left: PanickingProcess, right: PanickingProcess): boolean {
  return left.comm === right.comm && left.exe === right.exe && left.uid === right.uid;
}
