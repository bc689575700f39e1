import { groupReasons } from './causes.ts';
import { commandLine, fateText, lossesOf, type Style, section } from './print.ts';
import { printable } from './printable.ts';
import type { ProcessReport } from './schema.ts';
import type { CriuSaid, ProtectedWhy, Relative, UnprotectedWhy, Why } from './why.ts';

/** Names, reasons and what CRIU wrote may hold escape sequences of anybody's making. */
function part(title: string, lines: readonly string[]): string[] {
  return section(title, lines.map(printable));
}

/** What became of a process, in a few words. */
function whatBecameOf({ state, process }: ProtectedWhy): string {
  const { outcome, ended, adopted } = process;
  if (outcome !== 'restored') return outcome === 'pending' ? 'not decided yet' : outcome;
  const restored = ['restored', fateText(process)].filter(Boolean).join(' ');
  if (ended !== undefined) return `${restored}, and has ended since, ${ended}`;
  if (adopted !== undefined) return `${restored}, and runs in ${adopted}`;
  return state === 'settled' ? restored : `${restored}; the incident is not settled yet`;
}

/** `redis (pid 812) in incident ID: ` and what became of it. */
function title({ pid, comm }: { pid: number; comm: string }, incident: string, style: Style): string {
  return `${style.strong(printable(`${comm} (pid ${pid})`))} in incident ${incident}`;
}

function heading(why: ProtectedWhy, style: Style): string[] {
  const { process, incident } = why;
  const isBack = process.outcome === 'restored' && process.ended === undefined;
  const isWell = isBack || process.outcome === 'ended';
  const fate = (isWell ? style.good : style.bad)(printable(whatBecameOf(why)));
  const more = [
    commandLine(process),
    process.unit === undefined ? undefined : `of ${process.unit} before the panic`,
    why.wasOnPanickingCpu ? 'was on the CPU that panicked' : undefined,
  ].filter((line) => line !== undefined);
  return [`${title(process, incident, style)}: ${fate}`, ...more.map((line) => `  ${printable(line)}`)];
}

function protection({ process, ancestor }: ProtectedWhy): string {
  if (process.protectedBy !== undefined) return `named by ${process.protectedBy}`;
  const whom =
    ancestor === undefined
      ? 'an ancestor that a rule names'
      : `${ancestor.comm} (pid ${ancestor.pid}), which is named by ${ancestor.protectedBy}`;
  return `no rule names it: it comes along with ${whom}`;
}

function checks({ checks: all }: ProcessReport): string[] {
  const differing = all.filter(({ result }) => result === 'differs');
  const agreeing = all.length - differing.length;
  return [
    ...(agreeing > 0 ? [`${agreeing} ${agreeing === 1 ? 'check agrees' : 'checks agree'}`] : []),
    ...differing.map(({ what, detail }) => `differs: ${what}${detail === undefined ? '' : `: ${detail}`}`),
  ];
}

function verdict(process: ProcessReport): string[] {
  return [
    process.verdict ?? 'none: it was not captured',
    ...checks(process),
    ...process.repairs.map(({ what, used, instead }) => `repaired: ${what}: ${used} instead of ${instead}`),
  ];
}

function doubts({ inDoubt }: ProcessReport): string[] {
  return inDoubt.map(
    ({ tid, syscall, fd, reason }) =>
      `${syscall}${fd === undefined ? '' : ` on fd ${fd}`} of thread ${tid}: ${reason}`,
  );
}

function texts(sentences: readonly string[]): string[] {
  return groupReasons(sentences).map(({ text }) => text);
}

function relative({ pid, comm, outcome, ties }: Relative): string {
  const how = ties.length === 0 ? 'through another one' : ties.join(', ');
  return `${String(pid).padStart(7)}  ${comm.padEnd(15)}  ${(outcome ?? '?').padEnd(8)}  ${how}`;
}

function criu(said: CriuSaid | undefined, { group, outcome }: ProcessReport): string[] {
  if (said === undefined) {
    return group === undefined || outcome === 'refused' ? [] : ['no log of its restore is kept'];
  }
  const none = said.lines.length === 0 ? ['no error, no warning, and nothing that names it'] : said.lines;
  const more = said.leftOut === 0 ? [] : [`and ${said.leftOut} more lines like these`];
  return [...none, ...more, `all of it: ${said.log}`];
}

function procedure({ crashProcedure }: ProcessReport): string[] {
  if (crashProcedure === undefined) return [];
  const { delivery, state, detail, fallback } = crashProcedure;
  const how = delivery === 'none' ? '' : ` (by ${delivery})`;
  return [
    `${state}${how}${detail === undefined ? '' : `: ${detail}`}`,
    ...(fallback === undefined ? [] : [`fallback: ${fallback}`]),
  ];
}

function lossTitle({ fate }: ProcessReport): string {
  return fate === 'for-its-procedure'
    ? 'Lost, which no program expects: it may not go on'
    : 'Lost, and delivered as a failure';
}

function ofProtected(why: ProtectedWhy, style: Style): string[] {
  const { process, relatives } = why;
  const together = process.outcome === 'restored' ? 'Restored together with' : 'What it is tied to';
  return [
    ...heading(why, style),
    ...part('Protection', [protection(why)]),
    ...part('Why it is not back', texts(process.reasons)),
    ...part('Why it may not go on', texts(process.refusedFor ?? [])),
    ...part('What to do', why.advice),
    ...part('Verdict', verdict(process)),
    ...part('In doubt', doubts(process)),
    ...part(lossTitle(process), texts(lossesOf(process))),
    ...part('Notes and losses', texts(process.notes)),
    ...part(together, relatives.map(relative)),
    ...part('Its restore', process.plan ?? []),
    ...part("Its group's restore", why.groupPlan),
    ...part('What CRIU said', criu(why.criu, process)),
    ...part('Crash procedure', procedure(process)),
  ];
}

function ofUnprotected({ incident, unprotected, unmatchedRules }: UnprotectedWhy, style: Style): string[] {
  return [
    `${title(unprotected, incident, style)}: ${style.bad('not protected')}`,
    '  it ran when the kernel died, and no rule named it or an ancestor of it: nothing was tried',
    ...part('Rules that no process matched', unmatchedRules),
    ...part('What to do', ['`otherworld protect` it, if it is to come back the next time']),
  ];
}

/** One page about one process of an incident, for people. */
export function printWhy(why: Why, style: Style): string {
  return ('process' in why ? ofProtected(why, style) : ofUnprotected(why, style)).join('\n');
}
