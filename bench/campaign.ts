import { type PanicOutcome, runComputingCampaign } from '../lab/campaign/computing.ts';
import type { Progress } from '../lab/progress.ts';

const PANICS = { quick: 2, whole: 20 };

/** Panics at random moments of a busy machine: who came back, and why others did not. */
export async function benchCampaign(
  quick: boolean,
  progress: Progress,
  keep: (soFar: string) => void,
): Promise<string> {
  const seed = Math.floor(Date.now() / 1000) % 2 ** 31;
  const soFar: PanicOutcome[] = [];
  const panics = quick ? PANICS.quick : PANICS.whole;
  const outcomes = await runComputingCampaign(
    { guest: `bench-${process.pid}-campaign`, release: 'trixie', panics, seed },
    progress,
    (outcome) => {
      progress.step(JSON.stringify(outcome.jobs));
      soFar.push(outcome);
      keep(describe(soFar, seed));
    },
  );
  return describe(outcomes, seed);
}

function describe(outcomes: readonly PanicOutcome[], seed: number): string {
  const sum = (of: (outcome: PanicOutcome) => number): number =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0);
  const names = Object.keys(outcomes[0]?.jobs ?? {});
  const results = ['right', 'wrong', 'refused', 'ended without a result', 'not finished'] as const;
  const rows = names.map((name) => {
    const counts = results.map((result) => sum(({ jobs }) => Number(jobs[name] === result)));
    return `| ${name} | ${counts.join(' | ')} |`;
  });
  const doubts = outcomes.flatMap(({ inDoubt }) => inDoubt.map((doubt) => `- in doubt: ${doubt}`));
  const reasons = outcomes.flatMap((outcome) => outcome.reasons.map((reason) => `- ${reason}`));
  const stageZero = outcomes.flatMap(({ stageZeroMilliseconds }) => stageZeroMilliseconds ?? []);
  const [least, most] = [Math.min(...stageZero), Math.max(...stageZero)];
  return [
    `${outcomes.length} panics (sysrq, bug, oops, NMI) at random moments of guests with 4 CPUs at work: \`make -j4\`, \`zstd -T4\`,`,
    `\`sysbench --threads=4\`, a Python and a C computation with known results. Seed ${seed}. ${sum(({ restored }) => restored)} processes came back,`,
    `${sum(({ refused }) => refused)} did not; ${sum(({ inDoubt }) => inDoubt.length)} system calls were in doubt. Stage zero took ${least} to ${most} ms.`,
    '',
    `| work | ${results.join(' | ')} |`,
    `| --- | ${results.map(() => '---:').join(' | ')} |`,
    ...rows,
    '',
    reasons.length === 0
      ? 'Nobody was refused.'
      : 'Why processes were refused, those left out that only belonged to one of them:',
    ...reasons,
    ...doubts,
  ].join('\n');
}
