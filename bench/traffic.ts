import { runTrafficCampaign, type TrafficOutcome } from '../lab/campaign/traffic/campaign.ts';
import { fates, type TalkOutcome } from '../lab/campaign/traffic/outcome.ts';
import { serverNames } from '../lab/campaign/traffic/talks.ts';
import type { Progress } from '../lab/progress.ts';
import { markdownTable } from './document.ts';
import { median } from './timing.ts';

const PANICS = { quick: 2, whole: 20 };

/** Panics in the middle of traffic with clients outside: which connections went on, and is all there. */
export async function benchTraffic(
  quick: boolean,
  progress: Progress,
  keep: (soFar: string) => void,
): Promise<string> {
  const seed = Number(process.env.OTHERWORLD_TRAFFIC_SEED ?? Math.floor(Date.now() / 1000) % 2 ** 31);
  const panics = Number(process.env.OTHERWORLD_TRAFFIC_PANICS ?? (quick ? PANICS.quick : PANICS.whole));
  const soFar: TrafficOutcome[] = [];
  const outcomes = await runTrafficCampaign(
    { guest: `bench-${process.pid}-traffic`, release: 'trixie', panics, seed },
    progress,
    (outcome) => {
      progress.step(JSON.stringify(outcome));
      soFar.push(outcome);
      keep(describeTraffic(soFar, seed));
    },
  );
  return describeTraffic(outcomes, seed);
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, one) => total + one, 0);

function row(name: string, talks: readonly TalkOutcome[]): string[] {
  const counts = fates.map((fate) => String(talks.filter((talk) => talk.fate === fate).length));
  const silences = talks.filter(({ fate }) => fate === 'kept').map(({ silenceSeconds }) => silenceSeconds);
  const silence =
    silences.length === 0 ? ['', ''] : [median(silences).toFixed(0), String(Math.max(...silences))];
  const bytes = sum(talks.map(({ bytesSent, bytesGot }) => bytesSent + bytesGot));
  const answered = sum(talks.map((talk) => talk.answered));
  const faults = talks.filter((talk) => talk.faults.length > 0).length;
  return [name, ...counts, String(answered), (bytes / 2 ** 20).toFixed(0), ...silence, String(faults)];
}

/** @returns Markdown */
function describeTraffic(outcomes: readonly TrafficOutcome[], seed: number): string {
  const talks = outcomes.flatMap((outcome) => outcome.talks);
  const rows = serverNames.map((name) =>
    row(
      name,
      talks.filter(({ server }) => server === name),
    ),
  );
  const faults = outcomes.flatMap(({ incident, talks }) =>
    talks.flatMap(({ name, fate, why, faults }) => {
      const said = [...faults, ...(fate === 'lost' ? why : [])];
      return said.map((fault) => `- wrong: ${name} (${incident}): ${fault}`);
    }),
  );
  const named = (fate: string): string[] => [
    ...new Set(
      talks.filter((talk) => talk.fate === fate).flatMap(({ why }) => why.map((one) => `- ${fate}: ${one}`)),
    ),
  ];
  const doubts = outcomes.flatMap(({ inDoubt }) => inDoubt.map((doubt) => `- in doubt: ${doubt}`));
  const many = `${outcomes.length} ${outcomes.length === 1 ? 'panic' : 'panics'}`;
  return [
    `${many} (sysrq, bug, oops, NMI) at random moments of guests with 2 or 4 CPUs, in the middle of the traffic of ${talks.length} TCP connections`,
    'with clients outside of the guest: a log of numbered entries and streams both ways (Python), Redis (`INCR`, `RPUSH`, `PUBLISH`,',
    'blocked `BLPOP`), memcached in its sandbox, and downloads from nginx. After the report they go on over the same connections. Then',
    "each client's record is compared with what the server has: nothing that was acknowledged may be lost, nothing applied twice, and the",
    'SHA-256 of streams is that of both ends. Where connections may be lost (half of the panics), those that were worked on are reset by',
    `name, else their server is refused. Seed ${seed}. Silence is the longest time in s without an answer.`,
    '',
    markdownTable(
      ['connections', ...fates, 'answers', 'MiB', 'silence, median', 'silence, most', 'wrong'],
      rows,
    ),
    '',
    faults.length === 0 ? 'Nothing was lost, repeated or wrong, and nothing hung.' : 'What was wrong:',
    ...faults,
    ...named('reset'),
    ...named('refused'),
    ...doubts,
  ].join('\n');
}
