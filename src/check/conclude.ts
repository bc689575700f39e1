import type { Loss, UnexpectedLoss } from '../model/loss.ts';
import type { InDoubt } from '../model/verdict.ts';
import type { GroupImages, Look, Seen } from './look.ts';

/**
 * What would become of a process if the kernel died now:
 * - `comes back`: nothing stands against it, by all looks, or by the last two in a row; what it lost by some
 *   of them is of the moment;
 * - `with losses`: so it does, without something that it may lose by each of those looks, if not the same;
 * - `for its procedure`: it would lose what no program expects to lose, and has a crash procedure, for which
 *   alone it comes back;
 * - `refused`: something does that lasts;
 * - `depends`: it would be refused at a moment at which it was looked at, and at others perhaps not;
 * - `ending`: it was about to end.
 */
export type Outcome = 'comes back' | 'with losses' | 'for its procedure' | 'refused' | 'depends' | 'ending';

type AnyLoss = Loss | UnexpectedLoss;

/** What several looks at a process say. */
export interface Conclusion {
  readonly pid: number;
  readonly comm: string;
  readonly outcome: Outcome;
  /** Why it is refused: what every look found. */
  readonly reasons: readonly string[];
  /**
   * What the last look found besides, or one before it if the last found nothing; then, as `lost: ...`, what
   * it would lose by some of the looks.
   */
  readonly moments: readonly string[];
  /** What it would lose or have changed. */
  readonly notes: readonly string[];
  /** What it would lose by every look, in the words of the last: what it may, and what it does not expect. */
  readonly losses: readonly AnyLoss[];
  readonly inDoubt: readonly InDoubt[];
  /** Of one that would come back for its procedure alone: why, by every look, it would be refused without. */
  readonly against: readonly string[];
  /** By the last look: the images of the group that it would come back with; undefined if it would not. */
  readonly images?: GroupImages;
}

function reasonsOf({ reasons, moments }: Seen): readonly string[] {
  return [...reasons, ...moments];
}

/** What a loss is known by: how it is said may change with each look. */
function lossKey({ kind, of }: AnyLoss): string {
  return `${kind} ${of}`;
}

function lostBy({ unexpected, losses }: Seen): readonly AnyLoss[] {
  return [...unexpected, ...losses];
}

function haveSame(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((item) => other.includes(item));
}

function isSame(one: Seen, other: Seen): boolean {
  return (
    one.isEnding === other.isEnding &&
    haveSame(one.reasons, other.reasons) &&
    haveSame(lostBy(one).map(lossKey), lostBy(other).map(lossKey))
  );
}

/** Whether a process was found alike by two looks, and with nothing that is of the moment. */
function isSettled(now: Seen, before: Seen | undefined): boolean {
  return (
    before !== undefined && now.moments.length === 0 && before.moments.length === 0 && isSame(now, before)
  );
}

/** Whether the last two looks agree about every process: then a further one would find nothing else. */
export function agree(looks: readonly Look[]): boolean {
  const [last, before] = [looks.at(-1), looks.at(-2)];
  if (last === undefined || before === undefined) return false;
  return [...last.values()].every((now) => isSettled(now, before.get(now.pid)));
}

/**
 * The same for who has nothing to say of those that come back whole: the first look found nothing against
 * anybody, and nothing that would be lost.
 */
export function agreeOrFree(looks: readonly Look[]): boolean {
  const [first, ...more] = looks;
  if (first === undefined || more.length > 0) return agree(looks);
  return [...first.values()].every((now) => reasonsOf(now).length === 0 && lostBy(now).length === 0);
}

/** What all looks found, in the order of the last. */
function inAll<T>(looks: readonly Seen[], of: (seen: Seen) => readonly T[], key: (item: T) => string): T[] {
  const sets = looks.map((look) => new Set(of(look).map(key)));
  const last = looks.at(-1);
  return last === undefined ? [] : of(last).filter((item) => sets.every((set) => set.has(key(item))));
}

function outcomeOf(counted: readonly Seen[], reasons: readonly string[]): Outcome {
  if (counted.at(-1)?.isEnding) return 'ending';
  if (reasons.length > 0) return 'refused';
  // One look may have missed something while it moved, or found the process between two things it does.
  if (!counted.every((look) => reasonsOf(look).length === 0)) return 'depends';
  if (counted.every(({ unexpected }) => unexpected.length > 0)) return 'for its procedure';
  if (counted.some(({ unexpected }) => unexpected.length > 0)) return 'depends';
  return counted.every(({ losses }) => losses.length > 0) ? 'with losses' : 'comes back';
}

/** What only some looks found lost, each once. */
function passingLosses(looks: readonly Seen[], lasting: readonly AnyLoss[]): string[] {
  const known = new Set(lasting.map(lossKey));
  const found = new Map(looks.flatMap(lostBy).map((loss) => [lossKey(loss), loss.what]));
  return [...found].filter(([key]) => !known.has(key)).map(([, what]) => `lost: ${what}`);
}

function conclude(looks: readonly Seen[]): Conclusion {
  const last = looks.at(-1)!;
  const before = looks.at(-2);
  // What two looks agree about holds, whatever those before them saw while it changed.
  const counted = before !== undefined && isSettled(last, before) ? [before, last] : looks;
  const itself = (text: string) => text;
  const reasons = looks.length === 1 ? [] : inAll(counted, (look) => look.reasons, itself);
  const others = (look: Seen) => reasonsOf(look).filter((reason) => !reasons.includes(reason));
  const losses = inAll(counted, lostBy, lossKey);
  return {
    ...{ pid: last.pid, comm: last.comm, outcome: outcomeOf(counted, reasons), reasons },
    moments: [
      ...(counted.map(others).findLast((found) => found.length > 0) ?? []),
      ...passingLosses(counted, losses),
    ],
    notes: inAll(counted, (look) => look.notes, itself),
    losses,
    against: inAll(counted, (look) => look.against, itself),
    inDoubt: inAll(
      counted,
      (look) => look.inDoubt,
      ({ tid, syscall }) => `${tid} ${syscall}`,
    ),
    ...(last.images === undefined ? {} : { images: last.images }),
  };
}

/**
 * What looks, the last of which comes last, say together. What changes while it is looked at, as a process
 * that computes does, is told from what lasts: a reason counts if each look found it, in the same words, and
 * none called it one of the moment. A process that is not in the last look is gone.
 */
export function concludeLooks(looks: readonly Look[]): Conclusion[] {
  const last = looks.at(-1);
  if (last === undefined) return [];
  return [...last.keys()].map((pid) => conclude(looks.flatMap((look) => look.get(pid) ?? [])));
}
