import { adviceFor } from './advice.ts';

/** Reasons that say the same of different objects. */
export interface Cause {
  /** The first of them, and what the others say instead: one line. */
  readonly text: string;
  readonly count: number;
  /** What the administrator can do about it, where there is something. */
  readonly advice: string | undefined;
}

/** How many objects a line names. */
const MOST_OBJECTS = 5;

/**
 * The parts of a sentence that name an object: numbers of descriptors and threads, endpoints, addresses,
 * paths, counts, and a process's name behind its number. Two sentences that differ in nothing else have the
 * same cause.
 */
const OBJECT =
  /\(fd \d+\)|\[[0-9a-f:.]+\]:\d+|\b\d+(?:\.\d+){3}:\d+|(?<=\d )\([^()]{1,15}(?=[;)])|\b0x[0-9a-f]+|(?<![\w/])[/@][^\s,;]+|\b\d+\b/g;

/** What stands for an object in what two sentences have in common. */
const HOLE = '\0';

/** Sentences that say nothing of their own where another one is there, which they follow from. */
const CONSEQUENCES = [
  { of: /^is in a mnt namespace of its own/, follows: /in a mount namespace of its own$/ },
] as const;

function withoutConsequences(sentences: readonly string[]): string[] {
  const known = CONSEQUENCES.filter(({ of }) => sentences.some((sentence) => of.test(sentence)));
  return sentences.filter((sentence) => !known.some(({ follows }) => follows.test(sentence)));
}

function objectsOf(sentence: string): string[] {
  return sentence.match(OBJECT) ?? [];
}

/**
 * One line for each cause, in the order of the first reason of each; no cause is left out, however many there
 * are, only what follows from another one.
 * @param sentences reasons, or notes, of one process
 */
export function groupReasons(sentences: readonly string[]): Cause[] {
  const groups = new Map<string, string[]>();
  for (const sentence of new Set(withoutConsequences(sentences))) {
    const key = sentence.replace(OBJECT, HOLE);
    groups.set(key, [...(groups.get(key) ?? []), sentence]);
  }
  return [...groups.values()].map((group) => {
    const [first = ''] = group;
    return { text: oneLine(group), count: group.length, advice: adviceFor(first) };
  });
}

function oneLine([first = '', ...others]: readonly string[]): string {
  if (others.length === 0) return first;
  const named = objectsOf(first);
  const instead = others.slice(0, MOST_OBJECTS).map((sentence) => {
    const differing = objectsOf(sentence).filter((object, i) => object !== named[i]);
    return differing.map((object) => object.replace(/^\(|\)$/g, '')).join(' ');
  });
  const objects = instead.filter(Boolean);
  const more = others.length > MOST_OBJECTS ? ` and ${others.length - MOST_OBJECTS} more` : '';
  const list = objects.length === 0 ? '' : ` (${objects.join(', ')}${more})`;
  return `${first}; and ${others.length} more like it${list}`;
}
