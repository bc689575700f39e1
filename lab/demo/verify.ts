import type { IncidentReport } from '../../src/report/schema.ts';
import { LOAD_KEYS, type Load, type LoadAfterwards, wasReset, wasUnderLoad, wrongKeys } from './load.ts';
import { type CounterStatus, type Observation, wasCheckedWhole } from './observation.ts';
import { savedText, unsavedText } from './scene.ts';

/** One thing that has to be true after the panic. */
export interface Row {
  readonly part: 'survival' | 'crash procedure';
  readonly what: string;
  readonly before: string;
  readonly after: string;
  readonly ok: boolean;
}

/** What was looked at, and asked of the survivors, for the table. */
export interface Evidence {
  readonly before: Observation;
  readonly after: Observation;
  /** Digest of the Python interpreter's variables. */
  readonly pythonBefore: string;
  readonly pythonAfter: string;
  /** The computation, its result by another machine, and whether it was still computing before the panic. */
  readonly orbits: { readonly pid: number; readonly known: string; readonly isEarly: boolean };
  /** Its result, empty if it has none. */
  readonly orbitsAfter: string;
  /** The client that loaded Redis until the panic, and what is there of its writes. */
  readonly load: Load;
  readonly loadAfter: LoadAfterwards;
  /** JOE's screen after more was typed into it. */
  readonly joeGoesOn: string;
  readonly typedAfterwards: string;
  /** What the dying kernel wrote of its panic. */
  readonly lastWords: string | undefined;
  readonly secondsSincePanic: number;
  readonly report: IncidentReport;
}

/** What rows need of the report, and of what was there before. */
interface Judged {
  readonly before: Pick<Observation, 'processes'>;
  readonly report: {
    readonly stageZero?: Pick<NonNullable<IncidentReport['stageZero']>, 'saved' | 'processors'> | undefined;
    readonly processes: readonly Pick<IncidentReport['processes'][number], 'pid' | 'losses' | 'outcome'>[];
  };
}

/** Compares before and after; every row is a statement of the demo. */
export function verify(evidence: Evidence): Row[] {
  return [
    ...survivalRows(evidence),
    ...loadRows(evidence),
    ...counterRows(evidence.before.counter, evidence.after.counter),
    ...computingRows(evidence),
    ...kernelRows(evidence),
    ...procedureRows(evidence),
  ];
}

function row(part: Row['part'], what: string, before: unknown, after: unknown, ok = before === after): Row {
  return { part, what, before: String(before), after: String(after), ok };
}

function survivalRows({
  before,
  after,
  pythonBefore,
  pythonAfter,
  joeGoesOn,
  typedAfterwards,
}: Evidence): Row[] {
  const screen = (text: string): string => `${text.trim().split('\n').length} lines`;
  const unsaved = after.joeScreen.includes('(Modified)') && after.joeScreen.includes(unsavedText);
  const onDisk = (text: string): string => (text === savedText ? 'as saved before' : 'changed');
  const sameScreen = before.joeScreen === after.joeScreen && before.joeScreen.includes(unsavedText);
  return [
    { ...row('survival', "JOE's screen in tmux", screen(before.joeScreen), 'the same'), ok: sameScreen },
    row('survival', 'the document in JOE', 'unsaved', unsaved ? 'still unsaved' : 'saved or lost', unsaved),
    row('survival', 'its file on disk', onDisk(before.letterOnDisk), onDisk(after.letterOnDisk)),
    row('survival', 'JOE takes more text', '', 'typed, shown', joeGoesOn.includes(typedAfterwards)),
    row(
      'survival',
      'Redis: all keys and values',
      before.redisKeys.slice(0, 18),
      after.redisKeys.slice(0, 18),
      same(before.redisKeys, after.redisKeys),
    ),
    row(
      'survival',
      'Redis: the same run',
      before.redisRunId.slice(0, 12),
      after.redisRunId.slice(0, 12),
      same(before.redisRunId, after.redisRunId),
    ),
    row(
      'survival',
      'Python: all variables',
      pythonBefore.slice(0, 12),
      pythonAfter.slice(0, 12),
      same(pythonBefore, pythonAfter),
    ),
    row(
      'survival',
      'PIDs of all programs',
      pidsOf(before.processes),
      pidsOf(after.processes),
      same(before.processes, after.processes),
    ),
  ];
}

export function loadRows({
  before,
  load,
  loadAfter,
  report,
}: Pick<Evidence, 'load' | 'loadAfter'> & Judged): Row[] {
  const { acknowledged, isGone, isReset, servesNew } = loadAfter;
  const wrong = wrongKeys(loadAfter);
  const redis = Number(/^redis (\d+) /m.exec(before.processes)?.[1]);
  const isLost = isGone && isReset && wasReset(report, load, redis);
  const isLoaded = wasUnderLoad(load, loadAfter);
  return [
    row(
      'survival',
      'Redis: acknowledged writes',
      `${acknowledged}, ${isLoaded ? 'under load' : 'not under load'}`,
      wrong === 0 ? 'none is lost' : `${wrong} of ${LOAD_KEYS} keys are wrong`,
      wrong === 0 && isLoaded && acknowledged >= LOAD_KEYS,
    ),
    row(
      'survival',
      'Redis: unprotected client',
      `PID ${load.pid}`,
      `${isLost ? 'gone, reset' : 'not reset'}; new ones are ${servesNew ? '' : 'not '}served`,
      isLost && servesNew,
    ),
  ];
}

/** Equal, and not because both are missing. */
function same(before: string, after: string): boolean {
  return before !== '' && before === after;
}

function pidsOf(processes: string): string {
  return processes
    .split('\n')
    .map((line) => line.split(' ')[1])
    .join(' ');
}

/** A counter that has not come back fails in each of them. */
export function counterRows(old: CounterStatus | undefined, now: CounterStatus | undefined): Row[] {
  if (old === undefined || now === undefined) {
    const whats = ['words checked', 'all its memory', 'errors', 'monotonic clock'];
    return whats.map((what) =>
      row('survival', `counter: ${what}`, old === undefined ? 'none' : '', 'gone', false),
    );
  }
  const seconds = (nanoseconds: number): string => `${(nanoseconds / 1e9).toFixed(1)} s`;
  const outage = now.largestRealtimeGapNanoseconds;
  const monotonic = now.largestMonotonicGapNanoseconds;
  const checkedWhole = wasCheckedWhole(old, now);
  const counting =
    now.wordsChecked > old.wordsChecked && now.vectorChecks > old.vectorChecks && now.pid === old.pid;
  return [
    row('survival', 'counter: words checked', old.wordsChecked, now.wordsChecked, counting),
    row(
      'survival',
      'counter: all its memory',
      '',
      checkedWhole ? 'checked since' : 'not checked yet',
      checkedWhole,
    ),
    row('survival', 'counter: errors', old.errors, now.errors, old.errors === 0 && now.errors === 0),
    row(
      'survival',
      'counter: monotonic clock',
      '',
      `shows ${seconds(monotonic)} of an outage of ${seconds(outage)}`,
      monotonic < outage / 2,
    ),
  ];
}

/** The computation may end between the last look and the panic: then it is not in the report. */
export function computingRows({
  orbits,
  orbitsAfter,
  report,
}: Pick<Evidence, 'orbits' | 'orbitsAfter'> & Pick<Judged, 'report'>): Row[] {
  const { saved = 0, processors = 0 } = report.stageZero ?? {};
  const outcome = report.processes.find(({ pid }) => pid === orbits.pid)?.outcome;
  const wasComputing = orbits.isEarly && outcome !== undefined;
  return [
    row(
      'survival',
      'orbits: the known result',
      wasComputing ? 'computing' : 'done already',
      `${orbitsAfter || 'none'}${outcome === 'restored' ? '' : ', not restored'}`,
      wasComputing && outcome === 'restored' && same(orbits.known, orbitsAfter),
    ),
    row(
      'survival',
      'registers of all CPUs',
      `${processors} CPUs`,
      `${saved} saved`,
      saved === processors && saved > 0,
    ),
  ];
}

function kernelRows({ before, after, lastWords, secondsSincePanic }: Evidence): Row[] {
  const young = after.uptimeSeconds < secondsSincePanic + 5 && before.bootId !== after.bootId;
  const boot = (id: string): string => `boot ${id.slice(0, 8)}`;
  return [
    row('survival', "the kernel's last words", '', lastWords ?? 'none', lastWords !== undefined),
    row(
      'survival',
      'another kernel runs',
      boot(before.bootId),
      boot(after.bootId),
      before.bootId !== after.bootId && after.isCrashKernel && !before.isCrashKernel,
    ),
    row(
      'survival',
      'its uptime',
      `${before.uptimeSeconds.toFixed(0)} s`,
      `${after.uptimeSeconds.toFixed(0)} s`,
      young,
    ),
  ];
}

function procedureRows({ before, after, report }: Evidence): Row[] {
  const part = 'crash procedure';
  const pid = /^joe-2 (\d+) /m.exec(after.processes)?.[1];
  const reported = report.processes.find((process) => String(process.pid) === pid)?.crashProcedure?.state;
  const saved = after.memoOnDisk.startsWith(savedText) && after.memoOnDisk.includes(unsavedText);
  const shown = after.rescueScreen.includes(unsavedText) && !after.rescueScreen.includes('(Modified)');
  return [
    row(
      part,
      'the document on disk',
      before.memoOnDisk === savedText ? 'without the text' : 'changed',
      saved ? 'saved by JOE' : 'not saved',
      saved,
    ),
    row(
      part,
      "JOE's terminal",
      'shows it, modified',
      shown ? 'shows it, unmodified' : 'does not show it',
      shown,
    ),
    row(part, 'the report says', '', reported ?? 'nothing', reported === 'replaced'),
  ];
}
