import { type Cause, groupReasons } from '../report/causes.ts';
import { sayRoom } from '../report/images-room.ts';
import { type Style, section } from '../report/print.ts';
import { printable } from '../report/printable.ts';
import type { FreeSpace } from '../system/free-space.ts';
import type { Conclusion, Outcome } from './conclude.ts';

const COMM_COLUMNS = 15;

const outcomeText: Readonly<Record<Outcome, string>> = {
  'comes back': 'comes back',
  'with losses': 'comes back with losses',
  'for its procedure': 'comes back for its procedure alone',
  refused: 'refused',
  depends: 'depends',
  ending: 'ending',
};

/** `1 process`, `2 processes`. */
export function processes(count: number): string {
  return `${count} ${count === 1 ? 'process' : 'processes'}`;
}

/** What the images of all take that can come back, those without room for theirs too. */
export function imagesBytes(conclusions: readonly Pick<Conclusion, 'images'>[]): number {
  const groups = new Map(
    conclusions.flatMap(({ images }) => (images === undefined ? [] : [[images.group, images.bytes]])),
  );
  return [...groups.values()].reduce((sum, bytes) => sum + bytes, 0);
}

/** What people are shown of a check: each process with all its causes, then what to do about them. */
export function printCheck(
  conclusions: readonly Conclusion[],
  style: Style,
  room: FreeSpace | undefined,
): string {
  const back = conclusions.filter(({ outcome }) => isBack(outcome)).length;
  const sorted = conclusions.toSorted((a, b) => a.pid - b.pid);
  return [
    `${back} of ${processes(conclusions.length)} would come back if the kernel died now`,
    `images: ${sayRoom({ bytes: imagesBytes(conclusions) }, room)}`,
    ...sorted.flatMap((one) => processLines(one, style)),
    ...whatToDo(sorted),
  ].join('\n');
}

/** Whether a process comes back to go on, whole or without what it may lose. */
export function isBack(outcome: Outcome): boolean {
  return outcome === 'comes back' || outcome === 'with losses';
}

function processLines(conclusion: Conclusion, style: Style): string[] {
  const { pid, comm, outcome, reasons, moments, losses, notes, inDoubt, against } = conclusion;
  const colour = {
    'comes back': style.good,
    'with losses': style.good,
    'for its procedure': style.strong,
    refused: style.bad,
    depends: style.strong,
    ending: style.strong,
  };
  const line = (text: string) => `           ${text}`;
  return [
    `${String(pid).padStart(7)}  ${printable(comm).padEnd(COMM_COLUMNS)}  ${colour[outcome](outcomeText[outcome])}`,
    ...groupReasons(reasons).map(({ text }) => line(printable(text))),
    ...groupReasons(against).map(({ text }) => line(`would be refused: ${printable(text)}`)),
    ...groupReasons(moments).map(({ text }) => line(`at this moment: ${printable(text)}`)),
    ...groupReasons(losses.map(({ what }) => what)).map(({ text }) => line(`lost: ${printable(text)}`)),
    ...inDoubt.map(({ tid, syscall, reason }) =>
      line(`in doubt: ${syscall} of thread ${tid}: ${printable(reason)}`),
    ),
    ...groupReasons(notes).map(({ text }) => line(`note: ${printable(text)}`)),
  ];
}

/** Of a living kernel what cannot be read need not be damaged: nothing stood still. */
const OF_THE_MOMENT =
  'a matter of the moment at which it was looked at: check again; for what is on a CPU most of the time, otherworld ' +
  'doctor tells whether stage zero can save the registers of every CPU (docs/stage-zero.md)';

/** What stands against a process, so that it would not go on, with what can be done about it. */
export function causesOf({ outcome, reasons, moments, against, losses }: Conclusion): Cause[] {
  // What it loses at times only adds nothing to why it may not go on.
  if (outcome === 'for its procedure')
    return groupReasons(against.length > 0 ? against : losses.map(({ what }) => what));
  const passing = groupReasons(moments).map((cause) => ({ ...cause, advice: OF_THE_MOMENT }));
  return [...groupReasons(reasons), ...passing];
}

/** Each advice once, with how many processes it is for. */
function whatToDo(conclusions: readonly Conclusion[]): string[] {
  const counts = new Map<string, number>();
  for (const conclusion of conclusions) {
    if (isBack(conclusion.outcome)) continue;
    for (const advice of new Set(causesOf(conclusion).flatMap((cause) => cause.advice ?? [])))
      counts.set(advice, (counts.get(advice) ?? 0) + 1);
  }
  return section(
    'What to do',
    [...counts].map(([advice, count]) => `${processes(count)}: ${advice}`),
  );
}
