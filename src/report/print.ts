import { groupReasons } from './causes.ts';
import { printable } from './printable.ts';
import { type IncidentReport, type ProcessReport, reportSchema, type StageReport } from './schema.ts';

/** How text is emphasised: with escape sequences on a terminal, not at all elsewhere. */
export interface Style {
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
  readonly strong: (text: string) => string;
}

const colour = (code: number) => (text: string) => `\u001b[${code}m${text}\u001b[0m`;
const plain = (text: string): string => text;

/** The style for an output. */
export function styleFor(isTerminal: boolean): Style {
  return isTerminal
    ? { good: colour(32), bad: colour(31), strong: colour(1) }
    : { good: plain, bad: plain, strong: plain };
}

/** An incident for people: what died, what came back, what did not and why, and how long it took. */
export function printReport(raw: IncidentReport, style: Style): string {
  const report = withPrintableTexts(raw);
  return [
    ...heading(report, style),
    '',
    ...processes(report, style),
    ...timing(report),
    ...memoryLines(report),
    ...whatToDo(report),
    ...section('Errors', report.errors),
    ...section('Notes', report.notes),
  ].join('\n');
}

function withPrintableTexts(report: IncidentReport): IncidentReport {
  const revive = (_: string, value: unknown): unknown =>
    typeof value === 'string' ? printable(value) : value;
  return reportSchema.parse(JSON.parse(JSON.stringify(report), revive));
}

function heading(report: IncidentReport, style: Style): string[] {
  const { panic } = report;
  const lines = [
    style.strong(`Incident ${report.id}`) + (report.state === 'settled' ? '' : ` (${report.state})`),
  ];
  if (report.state === 'abandoned')
    lines.push('  nothing was brought back, and the machine rebooted into its ordinary system');
  if (panic === undefined) return [...lines, '  the dead kernel could not be read'];
  lines.push(`  ${panic.message}`);
  lines.push(`  kernel ${panic.release}, up ${duration(panic.uptimeSeconds)}, died ${panic.at}`);
  if (panic.process) lines.push(`  on CPU ${panic.cpu} in ${panic.process.comm} (pid ${panic.process.pid})`);
  return lines;
}

function processes(report: IncidentReport, style: Style): string[] {
  const { processes: all } = report;
  if (all.length === 0) return [nobody(report), ...unmatched(report), ''];
  const back = all.filter(({ outcome }) => outcome === 'restored');
  const ended = back.filter((process) => process.ended !== undefined).length;
  const since =
    ended === 0 ? '' : `, ${ended} more came back and ${ended === 1 ? 'has' : 'have'} ended since`;
  const rows = all.flatMap((process) => processLines(process, style));
  const ending = all.filter(({ outcome }) => outcome === 'ended').length;
  const gone = ending === 0 ? '' : `, ${ending} more ${ending === 1 ? 'was' : 'were'} ending`;
  const heading = `${back.length - ended} of ${all.length - ending} protected processes run again${since}${gone}`;
  return [heading, ...rows, ...unmatched(report), ''];
}

function nobody({ stages }: IncidentReport): string {
  const wereSelected = stages.some(({ name, outcome }) => name === 'selection' && outcome === 'done');
  return wereSelected
    ? 'No protected process was running.'
    : 'Which protected processes were running is not known.';
}

function processLines(process: ProcessReport, style: Style): string[] {
  const isBack = process.outcome === 'restored' && process.ended === undefined;
  const good = isBack || process.outcome === 'ended';
  const outcome = (good ? style.good : style.bad)(process.outcome.padEnd(8));
  const details = [
    process.outcome === 'restored' ? fateText(process) : '',
    process.verdict === 'repaired' ? 'repaired' : '',
    process.adopted ? `in ${process.adopted}` : '',
    process.ended ? `has ended since, ${process.ended}` : '',
    process.crashProcedure ? `crash procedure ${process.crashProcedure.state}` : '',
  ].filter(Boolean);
  const says = commandLine(process);
  const name = `${String(process.pid).padStart(7)}  ${process.comm.padEnd(15)}`;
  return [
    `${name}  ${outcome}  ${details.join(', ')}`.trimEnd(),
    ...(says === undefined ? [] : [`           ${says}`]),
    ...groupReasons(process.reasons).map(({ text }) => `           ${text}`),
    ...groupReasons(process.refusedFor ?? []).map(({ text }) => `           would be refused: ${text}`),
    ...groupReasons(lossesOf(process)).map(({ text }) => `           lost: ${text}`),
    ...process.repairs.map(
      ({ what, used, instead }) => `           repaired: ${what}: ${used} instead of ${instead}`,
    ),
    ...process.inDoubt.map(
      ({ tid, syscall, reason }) => `           in doubt: ${syscall} of thread ${tid}: ${reason}`,
    ),
    ...groupReasons(process.notes).map(({ text }) => `           note: ${text}`),
    ...(process.crashProcedure?.detail
      ? [`           crash procedure: ${process.crashProcedure.detail}`]
      : []),
  ];
}

/** In which of the ways a process has come back; empty in incidents from before this was recorded. */
export function fateText({ fate }: Pick<ProcessReport, 'fate'>): string {
  if (fate === 'whole') return 'whole';
  if (fate === 'for-its-procedure') return 'for its procedure alone';
  return fate === 'with-losses' ? 'with losses' : '';
}

/** What a process has lost, in sentences. */
export function lossesOf({ losses = [] }: Pick<ProcessReport, 'losses'>): string[] {
  return losses.map(({ what }) => what);
}

/** Why a process does not go on: its reasons, or those for which it would have been refused. */
export function standingAgainst({ reasons, refusedFor = [] }: ProcessReport): readonly string[] {
  return [...reasons, ...refusedFor];
}

/** What to do about the reasons of all processes: each advice once, with how many it is for. */
function whatToDo(report: IncidentReport): string[] {
  const advice = new Map<string, number>();
  for (const process of report.processes) {
    const own = new Set(groupReasons(standingAgainst(process)).flatMap((cause) => cause.advice ?? []));
    for (const text of own) advice.set(text, (advice.get(text) ?? 0) + 1);
  }
  const lines = [...advice].map(
    ([text, count]) => `${count} ${count === 1 ? 'process' : 'processes'}: ${text}`,
  );
  return section('What to do', lines);
}

/** The command line, where it says more than the name, of which the kernel keeps 15 letters. */
export function commandLine({ comm, commandLine: line, exe }: ProcessReport): string | undefined {
  const says = line ?? exe;
  return says === comm || says?.endsWith(`/${comm}`) === true ? undefined : says;
}

function unmatched(report: IncidentReport): string[] {
  return report.unmatchedRules.map((rule) => `no process matched ${rule}`);
}

type StageZeroReport = NonNullable<IncidentReport['stageZero']>;

function timing(report: IncidentReport): string[] {
  if (report.stages.length === 0) return [];
  const start = report.secondsToCrashKernel;
  const lines = report.stages.map((stage) => {
    const failed = stage.outcome === 'done' ? '' : `  ${stage.outcome}`;
    const { used: usedBytes, total } = memoryAt(stage, report.memory);
    const used = `${mebibytes(usedBytes)} of ${mebibytes(total)} MiB used`;
    return (
      `  ${stage.name.padEnd(14)}${stage.startSeconds.toFixed(2).padStart(8)}` +
      `${stage.durationSeconds.toFixed(2).padStart(8)}  ${used}${failed}${stage.detail ? `  ${stage.detail}` : ''}`
    );
  });
  if (report.stageZero !== undefined) lines.unshift(stageZeroLine(report.stageZero));
  const since = start === undefined ? '' : `, which started about ${start.toFixed(0)} s after the panic`;
  const columns = `  ${'stage'.padEnd(14)}${'begins'.padStart(8)}${'takes'.padStart(8)}  memory at its end`;
  return [`Stages, in seconds since the crash kernel started${since}`, columns, ...lines, ''];
}

/** Before the crash kernel started, in thousandths of what the others take. */
function stageZeroLine({ phase, milliseconds, processors, saved, problems }: StageZeroReport): string {
  const took = milliseconds === undefined ? '' : (milliseconds / 1000).toFixed(4);
  const ended = phase === 'done' ? '' : `  ${phase}`;
  const says = [`registers of ${saved} of ${processors} processors saved`, ...problems].join('; ');
  return `  ${'stage-zero'.padEnd(14)}${''.padStart(8)}${took.padStart(8)}  ${says}${ended}`;
}

/**
 * Memory at the end of a stage, to be compared with what is reserved: until old memory was taken back, what
 * MemTotal leaves out (the kernel, its page descriptors) is in use as well.
 */
function memoryAt(
  { memoryUsedBytes, memoryTotalBytes }: StageReport,
  { reservedBytes }: IncidentReport['memory'],
): { used: number; total: number } {
  const kernel = Math.max(0, reservedBytes - memoryTotalBytes);
  return { used: memoryUsedBytes + kernel, total: memoryTotalBytes + kernel };
}

function memoryLines({ memory }: IncidentReport): string[] {
  return [
    `Memory: ${mebibytes(memory.reservedBytes)} MiB reserved, at most ${mebibytes(memory.peakUsedBytes)} MiB used ` +
      `until old memory was taken back (${mebibytes(memory.reclaimedBytes)} MiB)`,
  ];
}

/** Lines under a title, indented; nothing without lines. */
export function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', title, ...lines.map((line) => `  ${line.replaceAll('\n', '\n  ')}`)];
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(0);
}

function duration(totalSeconds: number): string {
  const days = Math.floor(totalSeconds / 86_400);
  const hours = Math.floor((totalSeconds % 86_400) / 3600);
  const minutes = Math.floor((totalSeconds % 3600) / 60);
  const parts = [days && `${days} d`, hours && `${hours} h`, minutes && `${minutes} min`].filter(Boolean);
  return parts.length > 0 ? parts.join(' ') : `${Math.floor(totalSeconds)} s`;
}
