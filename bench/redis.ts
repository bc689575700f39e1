import { inGuest, until } from '../lab/demo/scene.ts';
import type { Progress } from '../lab/progress.ts';
import { markdownTable } from './document.ts';
import { withGuest } from './guest.ts';
import { median, spread } from './timing.ts';

const TESTS = ['SET', 'GET'] as const;
type Test = (typeof TESTS)[number];
const STATES = ['not armed', 'armed'] as const;
type State = (typeof STATES)[number];
type Rates = Record<Test, number>;

const GUEST_MIB = 2048;
const SOCKET = '/root/redis.sock';

/**
 * Throughput of a redis-server whose machine is armed, and which is protected, against the same one while
 * nothing is armed: in turn, and each second pair the other way round, so that a drift of the machine's speed
 * meets both alike.
 *
 * @returns Markdown
 */
export async function benchRedis(quick: boolean, progress: Progress): Promise<string> {
  const pairs = quick ? 2 : 6;
  const requests = quick ? 5_000 : 50_000;
  const options = { memoryMiB: GUEST_MIB, arm: true };
  return withGuest('redis', options, progress, async (guest, { kernelRelease }) => {
    await startRedis(guest);
    const rates: Record<State, Rates[]> = { 'not armed': [], armed: [] };
    await measure(guest, requests);
    let now: State = 'armed';
    for (let pair = 1; pair <= pairs; pair++) {
      progress.step(`redis-benchmark armed and not armed, pair ${pair} of ${pairs}`);
      for (const state of pair % 2 === 1 ? STATES.toReversed() : STATES) {
        if (state !== now) await inGuest(guest, state === 'armed' ? 'otherworld arm' : 'otherworld disarm');
        now = state;
        rates[state].push(await measure(guest, requests));
      }
    }
    return [
      `\`redis-benchmark -t set,get -n ${requests}\` (50 clients, unix socket) in a guest of ${GUEST_MIB} MiB with 2 CPUs (Linux ${kernelRelease}); one redis-server,`,
      `protected throughout; ${pairs} pairs of runs in turn, after one that warms up. The noise is what lies between the slowest and the fastest`,
      'run of the same state, divided by their median.',
      '',
      markdownTable(
        ['', 'median requests/s', 'min', 'max', 'noise', 'ratio'],
        TESTS.flatMap((test) => STATES.map((state) => row(test, state, rates))),
      ),
      '',
      ...TESTS.map((test) => pairSentence(test, rates)),
    ].join('\n');
  });
}

async function startRedis(guest: string): Promise<void> {
  await inGuest(
    guest,
    [
      'systemctl disable --quiet --now redis-server',
      `redis-server --daemonize yes --port 0 --unixsocket ${SOCKET} --save '' --dir /root >/dev/null`,
      'otherworld protect --command redis-server',
    ].join('\n'),
  );
  await until(guest, `redis-cli -s ${SOCKET} ping`, 60);
}

async function measure(guest: string, requests: number): Promise<Rates> {
  const command = `redis-benchmark -s ${SOCKET} -t set,get -n ${requests} -r 100000 --csv`;
  const csv = await inGuest(guest, command);
  const rate = (test: Test): number => {
    const value = new RegExp(`^"${test}","([\\d.]+)"`, 'm').exec(csv)?.[1];
    if (value === undefined) throw new Error(`redis-benchmark says nothing of ${test}:\n${csv}`);
    return Number(value);
  };
  return { SET: rate('SET'), GET: rate('GET') };
}

function row(test: Test, state: State, rates: Record<State, Rates[]>): string[] {
  const values = rates[state].map((run) => run[test]);
  const [middle, least, most] = spread(values);
  const base = median(rates['not armed'].map((run) => run[test]));
  return [
    `${test}, ${state}`,
    ...[middle, least, most].map((value) => value.toFixed(0)),
    `${(((most - least) / middle) * 100).toFixed(0)} %`,
    (middle / base).toFixed(3),
  ];
}

/** Runs of one pair are neighbours in time: their ratio has less of the machine's noise. */
function pairSentence(test: Test, rates: Record<State, Rates[]>): string {
  const ratios = rates.armed.map((run, pair) => run[test] / rates['not armed'][pair]![test]);
  const [middle, least, most] = spread(ratios).map((value) => value.toFixed(3));
  return `${test}, armed to not armed in the same pair: median ${middle}, ${least} to ${most}.`;
}
