import { spawnSync } from 'node:child_process';

/** A command of a comparison. `before` runs untimed ahead of every run, to put things back. */
export interface Contender {
  readonly name: string;
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly before?: () => void;
}

export interface Timing {
  readonly name: string;
  /** Wall-clock seconds of each counted run, in order. */
  readonly seconds: readonly number[];
  /** Standard output of the last run. */
  readonly output: string;
}

/**
 * Runs the contenders in turn (A B C, A B C, ...) so that a drift of the machine's speed meets all of them alike; the
 * first round warms up and is not counted.
 *
 * @throws Error with the end of standard error when a command fails: a failed run has no time.
 */
export function race(contenders: readonly Contender[], rounds: number): Timing[] {
  const seconds = contenders.map(() => [] as number[]);
  const outputs = contenders.map(() => '');
  for (let round = 0; round <= rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      contender.before?.();
      const run = runOnce(contender);
      outputs[index] = run.output;
      if (round > 0) seconds[index]?.push(run.seconds);
    }
  }
  return contenders.map(({ name }, index) => ({
    name,
    seconds: seconds[index] ?? [],
    output: outputs[index] ?? '',
  }));
}

function runOnce({ name, command, env }: Contender): { seconds: number; output: string } {
  const [program, ...args] = command;
  if (program === undefined) throw new Error(`${name} has an empty command`);
  const start = process.hrtime.bigint();
  const run = spawnSync(program, args, {
    env: { ...process.env, ...env },
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const elapsed = Number(process.hrtime.bigint() - start) / 1e9;
  if (run.status !== 0) {
    throw new Error(
      `${name}: ${command.join(' ')} ended with ${run.status ?? run.signal}\n${run.stderr.slice(-2000)}`,
    );
  }
  return { seconds: elapsed, output: run.stdout };
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

/** Markdown table: median, minimum and maximum seconds, and each median divided by that of the first row. */
export function timingTable(timings: readonly Timing[]): string {
  const reference = timings[0];
  if (reference === undefined) return '';
  const base = median(reference.seconds);
  const rows = timings.map(({ name, seconds }) => {
    const middle = median(seconds);
    const cells = [middle, Math.min(...seconds), Math.max(...seconds)].map((value) => value.toFixed(3));
    return `| ${name} | ${cells.join(' | ')} | ${(middle / base).toFixed(2)} |`;
  });
  return [
    '| command | median s | min s | max s | ratio |',
    '| --- | ---: | ---: | ---: | ---: |',
    ...rows,
  ].join('\n');
}
