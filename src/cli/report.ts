import type { Command } from 'commander';
import { latestIncident, listIncidents, loadReport } from '../report/incident.ts';
import { printReport, styleFor } from '../report/print.ts';
import { reportJsonSchema } from '../report/schema.ts';
import { requireRoot } from './root.ts';

interface ReportOptions {
  json?: boolean;
  list?: boolean;
  schema?: boolean;
}

function show(id: string | undefined, options: ReportOptions): void {
  if (options.schema) {
    console.log(JSON.stringify(reportJsonSchema(), undefined, 2));
    return;
  }
  requireRoot('report');
  if (options.list) {
    const ids = listIncidents();
    console.log(options.json ? JSON.stringify(ids, undefined, 2) : ids.join('\n'));
    return;
  }
  const chosen = id ?? latestIncident();
  if (chosen === undefined) throw new Error('there was no incident on this machine');
  const report = loadReport(chosen);
  console.log(
    options.json ? JSON.stringify(report, undefined, 2) : printReport(report, styleFor(process.stdout.isTTY)),
  );
}

/** `otherworld report` */
export function registerReport(program: Command): void {
  program
    .command('report [id]')
    .description('what became of the processes after a panic (the latest, if no incident is named)')
    .option('--json', 'as JSON')
    .option('--list', 'ids of all incidents')
    .option('--schema', 'the JSON Schema of the report')
    .action(show);
}
