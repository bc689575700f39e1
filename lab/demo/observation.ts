import * as z from 'zod';
import { counterStatusPath, inGuest } from './scene.ts';

const directory = '/root/demo';

/** What the counter writes to its status file (examples/counter). */
export const counterStatus = z.object({
  pid: z.int(),
  sizeMiB: z.int(),
  threads: z.int(),
  errors: z.int(),
  passes: z.int(),
  wordsChecked: z.int(),
  leastCheckedSinceLargestGap: z.int(),
  wordsOfThread: z.int(),
  vectorChecks: z.int(),
  monotonicNanoseconds: z.number(),
  realtimeNanoseconds: z.number(),
  largestMonotonicGapNanoseconds: z.number(),
  largestRealtimeGapNanoseconds: z.number(),
});

export type CounterStatus = z.infer<typeof counterStatus>;

/** Everything that the demo compares, at one moment. */
export interface Observation {
  readonly joeScreen: string;
  readonly letterOnDisk: string;
  readonly rescueScreen: string;
  readonly memoOnDisk: string;
  readonly pythonScreen: string;
  /** Number of keys and digest of all of them with their values. */
  readonly redisKeys: string;
  readonly redisRunId: string;
  /** Undefined if there is none: its file goes with a counter that does not come back. */
  readonly counter: CounterStatus | undefined;
  /** `name pid comm` of each process, by name. */
  readonly processes: string;
  readonly bootId: string;
  readonly uptimeSeconds: number;
  readonly isCrashKernel: boolean;
}

/**
 * Whether every word of the counter's memory was checked since an outage that came after `before`: each
 * thread has seen a larger gap in real time than ever before, and has gone all round its part since.
 */
export function wasCheckedWhole(before: CounterStatus, after: CounterStatus): boolean {
  const outage = after.largestRealtimeGapNanoseconds > before.largestRealtimeGapNanoseconds;
  return outage && after.leastCheckedSinceLargestGap >= after.wordsOfThread;
}

/** The status in a few lines for people. */
export function describeCounter(status: CounterStatus): string {
  const { pid, sizeMiB, threads, passes, wordsChecked, vectorChecks, errors } = status;
  return [
    `pid ${pid}, ${sizeMiB} MiB of pattern, ${threads} threads`,
    `${wordsChecked} words checked and written anew, ${passes} whole passes`,
    `${vectorChecks} times all vector registers after a system call`,
    `${errors} errors`,
  ].join('\n');
}

/** The counter's status file, now; undefined if there is none. */
export async function readCounter(guest: string): Promise<CounterStatus | undefined> {
  return parseCounter(await inGuest(guest, scripts.counter));
}

function parseCounter(text: string): CounterStatus | undefined {
  return text.trim() === '' ? undefined : counterStatus.parse(JSON.parse(text));
}

/** Redis itself computes the digest: of the name and the serialised value of every key, in order. */
const digestOfKeys = `
local names = redis.call('KEYS', '*')
table.sort(names)
local digest = ''
for _, name in ipairs(names) do digest = redis.sha1hex(digest .. name .. redis.call('DUMP', name)) end
return #names .. ' ' .. digest`;

const pidOf = (server: string, target: string, what: string): string =>
  `$(tmux -L ${server} display -p -t ${target} '#{${what}}')`;

const scripts = {
  joeScreen: 'tmux -L demo capture-pane -p -t joe',
  letterOnDisk: `cat ${directory}/letter.txt`,
  rescueScreen: 'tmux -L rescue capture-pane -p -t joe',
  memoOnDisk: `cat ${directory}/memo.txt`,
  pythonScreen: 'tmux -L demo capture-pane -p -t python',
  redisKeys: `redis-cli --raw eval "${digestOfKeys}" 0`,
  redisRunId: "redis-cli info server | tr -d '\\r' | sed -n 's/^run_id://p'",
  counter: `if [ -e ${counterStatusPath} ]; then cat ${counterStatusPath}; fi`,
  processes: [
    `show() { echo "$1 $2 $(cat /proc/$2/comm)"; }`,
    `show tmux ${pidOf('demo', 'joe', 'pid')}`,
    `show joe ${pidOf('demo', 'joe', 'pane_pid')}`,
    `show python ${pidOf('demo', 'python', 'pane_pid')}`,
    `show tmux-2 ${pidOf('rescue', 'joe', 'pid')}`,
    `show joe-2 ${pidOf('rescue', 'joe', 'pane_pid')}`,
    `show redis $(redis-cli info server | tr -d '\\r' | sed -n 's/^process_id://p')`,
    `show counter $(cat ${directory}/counter.pid)`,
  ].join('\n'),
  bootId: 'cat /proc/sys/kernel/random/boot_id',
  uptime: 'cut -d" " -f1 /proc/uptime',
  crashKernel: 'grep -c elfcorehdr= /proc/cmdline',
} as const;

/**
 * Looks at everything. A program that does not answer leaves an empty text or an old status, and no error.
 */
export async function observe(guest: string): Promise<Observation> {
  const commands = Object.entries(scripts).map(
    ([name, script]) => `printf '\\0${name}\\1'\n(${script}) 2>/dev/null`,
  );
  const output = await inGuest(guest, `${commands.join('\n')}\nexit 0`);
  const found = new Map(output.split('\0').map((part) => splitOnce(part)));
  const text = (name: string): string => found.get(name) ?? '';
  const line = (name: string): string => text(name).trim();
  return {
    joeScreen: text('joeScreen'),
    letterOnDisk: text('letterOnDisk'),
    rescueScreen: text('rescueScreen'),
    memoOnDisk: text('memoOnDisk'),
    pythonScreen: text('pythonScreen'),
    redisKeys: line('redisKeys'),
    redisRunId: line('redisRunId'),
    counter: parseCounter(text('counter')),
    processes: line('processes'),
    bootId: line('bootId'),
    uptimeSeconds: Number(line('uptime')),
    isCrashKernel: line('crashKernel') === '1',
  };
}

function splitOnce(part: string): [string, string] {
  const at = part.indexOf('\x01');
  return [part.slice(0, at), part.slice(at + 1)];
}
