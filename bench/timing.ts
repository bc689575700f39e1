import { runCommand } from '../lab/command.ts';
import { LabError } from '../lab/error.ts';

/**
 * A command of a comparison. `before` and `after` are not in its time: they put things back, and read what it
 * printed.
 */
export interface Contender {
  readonly name: string;
  readonly command: readonly string[];
  readonly before?: () => void;
  readonly after?: (output: string) => void;
}

export interface Timing {
  readonly name: string;
  /** Wall-clock seconds of each counted run, in order. */
  readonly seconds: readonly number[];
  /** Standard output of the last run. */
  readonly output: string;
}

/** Longest time of one run; crash needs 11 s for the largest here. */
const RUN_SECONDS = 120;

/**
 * Runs the contenders in turn (A B C, A B C, ...) so that a drift of the machine's speed meets all of them
 * alike; the first round warms up and is not counted.
 *
 * @throws LabError with the end of standard error when a command fails: a failed run has no time.
 */
export async function race(contenders: readonly Contender[], rounds: number): Promise<Timing[]> {
  const timings = contenders.map(({ name }) => ({ name, seconds: [] as number[], output: '' }));
  for (let round = 0; round <= rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      contender.before?.();
      const run = await runOnce(contender);
      const timing = timings[index]!;
      contender.after?.(run.output);
      timing.output = run.output;
      if (round > 0) timing.seconds.push(run.seconds);
    }
  }
  return timings;
}

async function runOnce({ name, command }: Contender): Promise<{ seconds: number; output: string }> {
  const [program = '', ...args] = command;
  const start = performance.now();
  const { status, stdout, stderr } = await runCommand(program, args, { timeoutSeconds: RUN_SECONDS });
  const seconds = (performance.now() - start) / 1000;
  if (status !== 0) {
    throw new LabError(`${name}: ${command.join(' ')} ended with ${status}\n${stderr.slice(-2000)}`);
  }
  return { seconds, output: stdout };
}

/** Median of at least one number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  const lower = sorted.length % 2 === 1 ? upper : sorted[middle - 1];
  if (upper === undefined || lower === undefined) throw new Error('median of no values');
  return (lower + upper) / 2;
}

/** Median, least and most, in that order. */
export function spread(values: readonly number[]): [number, number, number] {
  return [median(values), Math.min(...values), Math.max(...values)];
}
