import { listFiles } from '../../src/inspect/files.ts';
import { readMaps } from '../../src/inspect/maps.ts';
import { listProcesses } from '../../src/inspect/tasks.ts';
import { threadsInspection } from '../../src/inspect/threads.ts';
import { isGap, readLog } from '../../src/linux/printk.ts';
import { VmcoreError } from '../../src/vmcore/errors.ts';
import type { Kernel } from '../../src/vmcore/kernel.ts';

/** What a view has. */
interface View {
  /** Rows that are said to be sound, by their key, as text. */
  readonly rows: Readonly<Record<string, string>>;
  /** Keys of those that it says are missing or doubtful; `any` where it cannot tell which. */
  readonly marked: readonly string[] | 'any';
}

/**
 * All that `inspect` shows of a kernel, by the view's name. Plain data: it goes from one process to another.
 */
export type Views = Readonly<Record<string, View>>;

/** A view that could not be had says so, which is a mark for all that it would have had. */
function view(read: () => View): View {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof VmcoreError)) throw error;
    return { rows: {}, marked: 'any' };
  }
}

/** The log alone. */
export function logView(kernel: Kernel): View {
  const { entries, damage } = readLog(kernel);
  const rows: Record<string, string> = {};
  const marked: string[] = [];
  for (const entry of entries) {
    if (isGap(entry)) for (let i = 0; i < entry.missing; i++) marked.push(String(entry.sequence + i));
    else if (entry.doubt !== undefined) marked.push(String(entry.sequence));
    else rows[entry.sequence] = `${entry.timeNanoseconds} ${entry.text}`;
  }
  const isLost = entries.length === 0 && damage !== undefined;
  return { rows, marked: isLost ? 'any' : marked };
}

function rowsOf<Row extends { readonly problem?: string }>(
  rows: readonly Row[],
  key: (row: Row) => string | number,
  isWhole: boolean,
): View {
  const known = rows.filter(({ problem }) => problem === undefined);
  const doubtful = rows.filter(({ problem }) => problem !== undefined);
  return {
    rows: Object.fromEntries(known.map((row) => [String(key(row)), JSON.stringify(row)])),
    marked: isWhole ? doubtful.map((row) => String(key(row))) : 'any',
  };
}

/** Looks at everything, each view on its own: what one cannot have, another may. */
export function viewsOf(kernel: Kernel, pids: readonly number[]): Views {
  const views: Record<string, View> = { log: logView(kernel) };
  views.ps = view(() => {
    const { rows, unreadable, damage } = listProcesses(kernel);
    return rowsOf(rows, ({ pid }) => pid, unreadable.length + damage.length === 0);
  });
  for (const pid of pids) {
    views[`maps ${pid}`] = view(() => {
      const { rows, missing } = readMaps(kernel, pid);
      return rowsOf(rows, ({ start }) => start, missing.length === 0);
    });
    views[`files ${pid}`] = view(() => rowsOf(listFiles(kernel, pid), ({ fd }) => fd, true));
    views[`threads ${pid}`] = view(() => {
      const { threads, missing } = threadsInspection(kernel, pid).json() as {
        threads: { tid: number; problem?: string }[];
        missing: string[];
      };
      return rowsOf(threads, ({ tid }) => tid, missing.length === 0);
    });
  }
  return views;
}

/**
 * What is other in the views of a damaged kernel without being marked, as sentences.
 * @param what `rows`: those that are missing, or too many, count; `content`: those that say something else as
 * well
 */
export function silentViews(whole: Views, damaged: Views, what: 'rows' | 'content'): string[] {
  return Object.entries(whole).flatMap(([name, { rows }]) => {
    const { rows: found, marked } = damaged[name] ?? { rows: {}, marked: [] };
    if (marked === 'any') return [];
    const known = new Set(marked);
    return [...new Set([...Object.keys(rows), ...Object.keys(found)])]
      .filter((key) => !known.has(key))
      .filter((key) => (what === 'rows' ? key in rows !== key in found : rows[key] !== found[key]))
      .map((key) => `${name}: ${key} is ${found[key] ?? 'not there'}, was ${rows[key] ?? 'not there'}`);
  });
}

/**
 * The same for views that say that nothing is missing from them or doubtful in them: these must have every
 * row, and no other.
 */
export function silentWholeViews(whole: Views, damaged: Views): string[] {
  const sure = Object.entries(damaged).filter(([, { marked }]) => marked.length === 0);
  const named = Object.fromEntries(sure);
  const asked = Object.fromEntries(Object.entries(whole).filter(([name]) => name in named));
  return silentViews(asked, named, 'rows');
}
