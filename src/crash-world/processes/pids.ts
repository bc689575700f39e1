import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { longestFreeRange, type NumberRange } from '../../linux/pid.ts';
import { ifThere, processNumbers } from '../../system/proc.ts';

const LAST_PID = '/proc/sys/kernel/ns_last_pid';

/**
 * This program has to be started once more, under another number: a process of the dead world may want the
 * one that it has.
 */
export class NumberWanted extends Error {
  override readonly name = 'NumberWanted';
}

/**
 * What whoever starts this program does for it when it ends with this: starts it again (EX_TEMPFAIL of
 * sysexits.h).
 */
export const STATUS_AGAIN = 75;

/** Numbers for the crash world's own processes until those of the dead world are back. */
export interface OwnNumbers {
  readonly range: NumberRange;
  /** Whether a program of the crash world that runs now has a number that the dead world used. */
  readonly isInTheWay: boolean;
}

/** One field of /proc/PID/status; undefined if the process is gone, or has no such field. */
function statusField(pid: number | string, name: string): string | undefined {
  const status = ifThere(() => readFileSync(`/proc/${pid}/status`, 'latin1'));
  return status === undefined ? undefined : new RegExp(`^${name}:\\t(.*)$`, 'm').exec(status)?.[1];
}

/**
 * Numbers of all programs' threads; not those of the kernel's own, and not of init, whose number nobody else
 * can have.
 */
function programNumbers(): number[] {
  return processNumbers()
    .filter((pid) => pid !== 1 && statusField(pid, 'VmSize') !== undefined)
    .flatMap(threadsOf)
    .map(Number);
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    // It has ended meanwhile.
    return [];
  }
}

/** Lets the next process have the first free number of the range. */
export function startNumbersAt({ first }: NumberRange): void {
  writeFileSync(LAST_PID, String(first - 1));
}

/**
 * Chooses the numbers that the crash world's processes have from now on: where the dead world had none for
 * the longest stretch. Threads of the kernel and programs that are there already keep theirs.
 *
 * @param dead numbers of the dead world
 * @throws the file system's error if the kernel takes no number
 */
export function keepClear(
  dead: readonly number[],
  start: (range: NumberRange) => void = startNumbersAt,
  programs: () => readonly number[] = programNumbers,
): OwnNumbers {
  const range = longestFreeRange(dead);
  start(range);
  const used = new Set(dead);
  return { range, isInTheWay: programs().some((number) => used.has(number)) };
}

/** A sentence for each of these numbers that somebody has. */
export function takenNumbers(numbers: readonly number[]): string[] {
  return numbers.flatMap((number) => {
    const name = statusField(number, 'Name');
    if (name === undefined) return [];
    const leader = Number(statusField(number, 'Tgid'));
    const what =
      statusField(number, 'VmSize') === undefined
        ? `${name}, a thread of the kernel that runs now`
        : `${name}${leader === number ? '' : `, a thread of process ${leader}`}`;
    return [`the number ${number} is taken: ${what}`];
  });
}
