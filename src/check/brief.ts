import { printable } from '../report/printable.ts';
import { messageOf } from '../system/thrown.ts';
import { brief } from './check.ts';
import type { Conclusion } from './conclude.ts';
import { thisMachine } from './machine.ts';
import { causesOf, processes } from './print.ts';
import { checkThisMachine } from './this-machine.ts';

/** Processes that are named in brief. */
const MOST_NAMED = 5;

/**
 * The same in brief, for who has something else to say: a line for each process that would not come back,
 * with the first of its causes.
 */
export function inBrief(conclusions: readonly Conclusion[]): string[] {
  const others = conclusions.filter(({ outcome }) => outcome === 'refused' || outcome === 'depends');
  if (others.length === 0) return [];
  const lines = others.slice(0, MOST_NAMED).map((one) => {
    const { pid, comm, outcome } = one;
    const [first, ...more] = causesOf(one);
    const would = outcome === 'refused' ? 'would not come back' : 'may not come back';
    const rest = more.length === 0 ? '' : ` (and ${more.length} more)`;
    return printable(`  ${comm} (${pid}) ${would}: ${first?.text ?? 'it changes all the time'}${rest}`);
  });
  const unnamed = others.length - lines.length;
  return [
    ...lines,
    ...(unnamed > 0 ? [`  and ${processes(unnamed)} more`] : []),
    '  otherworld check tells every cause, and what to do about it',
  ];
}

/**
 * Checks processes and their descendants, for a command that is about something else.
 * @returns lines about those that would not come back, or one that says why that cannot be told
 */
export async function checkInBrief(pids: readonly number[]): Promise<string[]> {
  if (pids.length === 0) return [];
  try {
    const targets = { roots: pids, includeDescendants: true };
    const { conclusions } = await checkThisMachine(targets, thisMachine(), brief);
    return inBrief(conclusions);
  } catch (error) {
    return [printable(`  whether they would come back cannot be told: ${messageOf(error)}`)];
  }
}
