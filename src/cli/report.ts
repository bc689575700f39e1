import type { Command } from 'commander';
import { isCrashWorld } from '../arm/state.ts';
import { loadConfig } from '../config/config.ts';
import { IncidentError, latestIncident, listIncidents, loadReport } from '../report/incident.ts';
import { printReport, styleFor } from '../report/print.ts';
import { printWhy } from '../report/print-why.ts';
import { printable } from '../report/printable.ts';
import { configuredLimits, type Limits, type Pruned, prune, removeIncident } from '../report/prune.ts';
import { reportJsonSchema } from '../report/schema.ts';
import { explainProcess } from '../report/why.ts';
import { wellFormed } from '../system/byte-text.ts';
import { days, positiveNumber, UsageError } from './arguments.ts';
import { requireRoot } from './root.ts';

interface ReportOptions {
  json?: boolean;
  list?: boolean;
  schema?: boolean;
  why?: number;
  prune?: boolean;
  keep?: number;
  olderThan?: number;
  images?: boolean;
}

/** Throws a UsageError where two things are asked for of which one would not be done. */
export function requireOneThing(
  id: string | undefined,
  { schema, list, why, prune: isPrune }: ReportOptions,
): void {
  const isWhy = why !== undefined;
  const asked = [schema && '--schema', list && '--list', isWhy && '--why', isPrune && '--prune'].filter(
    Boolean,
  );
  if (asked.length > 1) throw new UsageError(`one at a time: ${asked.join(', ')}`);
  if (id !== undefined && (schema || list)) throw new UsageError(`${asked[0]} goes without an incident`);
}

function show(id: string | undefined, options: ReportOptions): void {
  requireOneThing(id, options);
  if (options.schema) {
    console.log(JSON.stringify(reportJsonSchema(), undefined, 2));
    return;
  }
  requireRoot('report');
  if (options.prune) {
    remove(id, options);
    return;
  }
  if (options.keep !== undefined || options.olderThan !== undefined || options.images) {
    throw new UsageError('--keep, --older-than and --images go with --prune');
  }
  if (options.list) {
    const ids = listIncidents();
    if (options.json) console.log(JSON.stringify(ids, undefined, 2));
    else for (const one of ids) console.log(one);
    return;
  }
  const chosen = id ?? latestIncident();
  if (chosen === undefined) throw new Error('there was no incident on this machine');
  const report = loadReport(chosen);
  const style = styleFor(process.stdout.isTTY);
  if (options.why === undefined) {
    console.log(options.json ? JSON.stringify(report, undefined, 2) : printReport(report, style));
    return;
  }
  const why = explainProcess(report, options.why);
  console.log(options.json ? JSON.stringify(why, wellFormed, 2) : printWhy(why, style));
}

/** `report --prune`: removes incidents and images, and says which. */
function remove(id: string | undefined, options: ReportOptions): void {
  const config = loadConfig();
  const images = config.images.directory;
  const pruned =
    id === undefined
      ? prune(limitsOf(configuredLimits(config), options), { images, unfinished: unfinished() })
      : removeNamed(id, images, options);
  if (options.json) console.log(JSON.stringify(pruned, undefined, 2));
  else printPruned(pruned);
  if (pruned.problems.length > 0) process.exitCode = 1;
}

/** What is named on the command line holds instead of what the configuration says. */
export function limitsOf(
  limits: Limits,
  { keep, olderThan, images }: Pick<ReportOptions, 'keep' | 'olderThan' | 'images'>,
): Limits {
  if (images && keep !== undefined) throw new UsageError('--images goes with --older-than, not with --keep');
  if (images) {
    const noIncidents = { incidents: Number.POSITIVE_INFINITY, incidentsMaxAgeDays: 0 };
    const all = olderThan === undefined;
    return {
      ...limits,
      ...noIncidents,
      imagesMaxAgeDays: olderThan ?? 0,
      keepImages: all ? 'never' : limits.keepImages,
    };
  }
  return {
    ...limits,
    incidents: keep ?? limits.incidents,
    incidentsMaxAgeDays: olderThan ?? limits.incidentsMaxAgeDays,
  };
}

function removeNamed(id: string, images: string, options: ReportOptions): Pruned {
  if (options.keep !== undefined || options.olderThan !== undefined || options.images) {
    throw new UsageError(
      'an incident that is named is removed whole: without --keep, --older-than and --images',
    );
  }
  if (!listIncidents().includes(id)) throw new IncidentError(`there is no incident ${id}`);
  if (id === unfinished()) throw new IncidentError(`incident ${id} is at work still`);
  const problems = removeIncident(id, images);
  return { incidents: problems.length === 0 ? [id] : [], images: [], problems };
}

/** In the crash world, the incident that has made it, until it has settled. */
function unfinished(): string | undefined {
  const latest = latestIncident();
  if (latest === undefined || !isCrashWorld()) return undefined;
  try {
    const { state } = loadReport(latest);
    return state === 'settled' || state === 'abandoned' ? undefined : latest;
  } catch (error) {
    if (error instanceof IncidentError) return latest;
    throw error;
  }
}

function printPruned({ incidents, images, problems }: Pruned): void {
  for (const id of incidents) console.log(`removed: incident ${id}`);
  for (const id of images.filter((one) => !incidents.includes(one))) console.log(`removed: images of ${id}`);
  if (incidents.length + images.length + problems.length === 0) console.log('nothing is over its limits');
  for (const problem of problems) console.error(printable(`otherworld: ${problem}`));
}

const HELP = `
Examples:
  otherworld report                     the latest incident
  otherworld report --why 812           what happened to process 812, and why
  otherworld report ID --why 812 --json the same of another incident, as JSON`;

/** `otherworld report` */
export function registerReport(program: Command): void {
  program
    .command('report [id]')
    .description('show what happened to the processes after a panic (the latest, if no incident is named)')
    .option('--json', 'print JSON')
    .option('--why <pid>', 'show everything about one process of the incident, on one page', positiveNumber)
    .option('--list', 'list the ids of all incidents')
    .option('--schema', 'print the JSON Schema of the report')
    .option(
      '--prune',
      'remove what is over the limits of the configuration, or the incident that is named; the latest stays',
    )
    .option('--keep <incidents>', 'with --prune: how many incidents stay', positiveNumber)
    .option('--older-than <days>', 'with --prune: remove what is older', days)
    .option('--images', 'with --prune: remove only images, which hold the memory of processes')
    .addHelpText('after', HELP)
    .action(show);
}
