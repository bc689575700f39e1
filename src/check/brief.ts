import { lookAtRoom, roomSentences } from '../arm/room-for-images.ts';
import { protectedNow } from '../arm/status.ts';
import { type Cause, groupReasons } from '../report/causes.ts';
import { printable } from '../report/printable.ts';
import { messageOf } from '../system/thrown.ts';
import { isQuickToCheck } from './brief-limits.ts';
import { brief } from './check.ts';
import type { Conclusion, Outcome } from './conclude.ts';
import { type Machine, thisMachine } from './machine.ts';
import { causesOf, processes } from './print.ts';
import { checkThisMachine } from './this-machine.ts';

/** Processes that are named in brief. */
const MOST_NAMED = 5;

const WOULD: Readonly<Record<Outcome, string>> = {
  refused: 'would not come back',
  depends: 'may not come back',
  'with losses': 'would come back with losses',
  'for its procedure': 'would come back for its crash procedure alone',
  'comes back': 'would come back',
  ending: 'was about to end',
};

/** What it loses, each look perhaps something else. */
function lostBy({ losses, moments }: Conclusion): Cause[] {
  return [...groupReasons(losses.map(({ what }) => what)), ...groupReasons(moments)];
}

/**
 * The same in brief, for who has something else to say: a line for each process that would not come back, or
 * not whole, with the first of its causes.
 */
export function inBrief(conclusions: readonly Conclusion[]): string[] {
  const others = conclusions.filter(({ outcome }) => outcome !== 'comes back' && outcome !== 'ending');
  if (others.length === 0) return [];
  const lines = others.slice(0, MOST_NAMED).map((one) => {
    const { pid, comm, outcome } = one;
    const [first, ...more] = outcome === 'with losses' ? lostBy(one) : causesOf(one);
    const rest = more.length === 0 ? '' : ` (and ${more.length} more)`;
    return printable(
      `  ${comm} (${pid}) ${WOULD[outcome]}: ${first?.text ?? 'it changes all the time'}${rest}`,
    );
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
 * @returns lines about those that would not come back, or one that says why that cannot be told, or that it
 *   takes longer
 */
export async function checkInBrief(
  pids: readonly number[],
  machine: () => Machine = thisMachine,
): Promise<string[]> {
  if (pids.length === 0) return [];
  try {
    if (!isQuickToCheck(pids)) return ['  otherworld check tells which of them would come back'];
    const targets = { roots: pids, includeDescendants: true };
    const { conclusions } = await checkThisMachine(targets, machine(), brief);
    return inBrief(conclusions);
  } catch (error) {
    return [printable(`  whether they would come back cannot be told: ${messageOf(error)}`)];
  }
}

/** What there is to say of the room for the images of all that is protected now, for such a command. */
export function roomInBrief(machine: () => Machine = thisMachine): string[] {
  try {
    const { config } = machine();
    return roomSentences(lookAtRoom(() => protectedNow(config), config)).map((said) =>
      printable(`  ${said}`),
    );
  } catch (error) {
    return [printable(`  whether there is room for the images cannot be told: ${messageOf(error)}`)];
  }
}
