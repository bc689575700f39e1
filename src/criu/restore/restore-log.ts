import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { RESTORE_LOG } from './names.ts';

const MAX_ERRORS = 20;

/**
 * The time that CRIU puts before each line: eleven characters, so that from the hundredth second on the
 * bracket that closes is cut off or stands in the place of a digit (criu/log.c: print_ts).
 */
const time = String.raw`\([\d.]+\)?`;
/**
 * `pie: 427: ` of the restorer, which runs in the restored process itself (compel/plugins/std/log.c), or `
 * 427: ` of its other code.
 */
const teller = String.raw`(?:pie: )?\d+: `;

/** `(00.012345)    343: Error (criu/files-reg.c:1234): text` */
const errorLine = new RegExp(String.raw`^(?:${time}\s*)?(?:${teller})?Error \([^)]*\): (.*)$`);
/** The restorer ends what does not fit into its buffer with `>` and goes on behind the same beginning. */
const continued = new RegExp(String.raw`^((?:${time}\s*)?pie: \d+: )(.*)>$`);

/** The lines of a log, those that the restorer has cut put together. */
function wholeLines(log: string): string[] {
  const lines: string[] = [];
  for (const line of log.split('\n')) {
    const last = lines.at(-1) ?? '';
    const [, prefix, text] = continued.exec(last) ?? [];
    if (prefix === undefined || !line.startsWith(prefix)) lines.push(line);
    else lines[lines.length - 1] = `${prefix}${text}${line.slice(prefix.length)}`;
  }
  return lines;
}

/**
 * The messages of a CRIU log's error lines, of CRIU 3.17 and 4.1, without times and places in its source;
 * each once.
 */
export function logErrors(log: string): string[] {
  const errors = wholeLines(log).flatMap((line) => errorLine.exec(line)?.[1] ?? []);
  return [...new Set(errors)];
}

/** Lines of a log that concern one process, and how many more there are. */
export interface LogExtract {
  /** As they are in the log, in its order. */
  readonly lines: readonly string[];
  readonly leftOut: number;
}

/** `(00.012345)    343: ` */
const beginning = new RegExp(String.raw`^(?:${time}\s*)?(?:${teller})?`);
/** Errors and warnings have their place in CRIU's source behind them. */
const remarkable = /^(?:Error|Warn) +\([^)]*\): /;
const MOST_REMARKABLE = 30;
const MOST_NAMING = 10;

/**
 * What a log says for who asks about one process: its errors and warnings, whoever they are of, and the lines
 * that have its number in their text. Lines that the process itself has written of its progress are left out.
 */
export function logLinesAbout(log: string, pid: number): LogExtract {
  const names = new RegExp(String.raw`(?<![\w.:/#-])${pid}(?![\w.:/-])`);
  const room = { remarkable: MOST_REMARKABLE, naming: MOST_NAMING };
  let leftOut = 0;
  const lines = wholeLines(log).filter((line) => {
    const text = line.replace(beginning, '');
    const kind = remarkable.test(text) ? 'remarkable' : names.test(text) ? 'naming' : undefined;
    if (kind === undefined) return false;
    if (room[kind]-- > 0) return true;
    leftOut++;
    return false;
  });
  return { lines, leftOut };
}

/** The first errors in the log of the restore of `directory`; empty without a log. */
export function readErrors(directory: string): string[] {
  const path = join(directory, RESTORE_LOG);
  return existsSync(path) ? logErrors(readFileSync(path, 'utf8')).slice(0, MAX_ERRORS) : [];
}

/** One sentence: CRIU reports the cause first, and its consequences after it. */
export function reasonOf(errors: readonly string[], status: string): string {
  return errors.length === 0 ? `criu ended with ${status} and said nothing` : `criu: ${errors[0]}`;
}
