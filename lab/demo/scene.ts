import { setTimeout as sleep } from 'node:timers/promises';
import { copyFiles, execCaptured, execChecked, LOOK_SECONDS } from '../channel.ts';
import { LabError } from '../error.ts';
import { guestPid } from '../guest.ts';
import { guestClock } from '../guest-time.ts';
import type { Progress } from '../progress.ts';
import type { Programs } from './programs.ts';

/** Debian packages that the demo's guest has. */
export const demoPackages = ['joe', 'tmux', 'redis-server', 'redis-tools', 'python3'] as const;

/** Where the demo's files are in the guest. */
const directory = '/root/demo';

/** Written anew each second; on a tmpfs, so that no second of it waits for a disk when the kernel dies. */
export const counterStatusPath = '/run/demo-counter.status';

/** What is on disk before anybody types. */
export const savedText = 'Dear reader,\n';

/** Typed, never saved. */
export const unsavedText = 'none of this has been saved when the kernel dies.';

/** Number of keys that Redis gets: strings, and a hash, a list and a sorted set besides. */
const redisStrings = 20_000;

/**
 * Runs a shell script in the guest and returns its output. Throws a LabError with what it said if it fails.
 */
export function inGuest(guest: string, script: string, timeoutSeconds = LOOK_SECONDS): Promise<string> {
  return execChecked(guest, ['sh', '-c', script], { timeoutSeconds });
}

/** Brings the programs into the guest and starts all that is to survive; what computes waits to begin. */
export async function setScene(guest: string, programs: Programs, progress: Progress): Promise<void> {
  await inGuest(guest, `mkdir -p ${directory}`);
  await copyFiles(guest, programs.counter, `${guest}:${directory}/counter`);
  await copyFiles(guest, programs.orbits, `${guest}:${directory}/orbits`);
  await copyFiles(guest, programs.joe, `${guest}:${directory}/joe-with-procedure`);
  progress.step('typing a document into JOE inside tmux, without saving it');
  await inGuest(guest, startEditors);
  await typeInto(guest, 'demo', 'joe', `${unsavedText}`);
  await typeInto(guest, 'rescue', 'joe', `${unsavedText}`);
  progress.step(`starting Redis without persistence and filling it with ${redisStrings} keys`);
  await inGuest(guest, startRedis);
  await until(guest, 'redis-cli ping | grep -q PONG', 60);
  await inGuest(guest, `redis-cli eval "${fillRedis}" 0`);
  progress.step('starting a Python interpreter and giving it variables');
  await startPython(guest);
  await inGuest(guest, startWaiting);
}

/** Threads of the counter where there are few CPUs. */
const FEWEST_THREADS = 4;

/**
 * Lets the counter begin, with a thread for each CPU at least; none waits, so the guest is slow from then on.
 */
export async function startCounting(guest: string, progress: Progress): Promise<void> {
  const threads = Math.max(FEWEST_THREADS, Number(await inGuest(guest, 'nproc')));
  progress.step(`starting the counter: 256 MiB of pattern, ${threads} threads that never wait`);
  await begin(guest, 'counter', threads);
  await until(guest, `grep -q '"wordsChecked":[1-9]' ${counterStatusPath}`, 120);
}

/** Lets a program begin that waits for its argument, and waits until it runs. */
async function begin(guest: string, name: keyof typeof waiting, argument: number): Promise<void> {
  await inGuest(guest, `echo ${argument} >${directory}/${name}.argument`);
  await until(guest, `grep -qx ${name} "/proc/$(cat ${directory}/${name}.pid)/comm"`, 60);
}

/** The computation goes on for so long, where the kernel does not die. */
const COMPUTING_SECONDS = 60;
/** Steps by which the speed of the guest is measured, with the counter at work. */
const TRIAL_STEPS = 2000;

/**
 * Lets the computation with a known result begin: to be done right before the panic.
 * @returns its steps and its PID
 */
export async function startOrbits(
  guest: string,
  progress: Progress,
): Promise<{ steps: number; pid: number }> {
  const trial = `cd ${directory}; s=$(date +%s%N); ./orbits ${TRIAL_STEPS} trial; echo $(($(date +%s%N) - s))`;
  const nanoseconds = Number(await inGuest(guest, trial));
  const steps = Math.ceil((COMPUTING_SECONDS * 1e9 * TRIAL_STEPS) / nanoseconds);
  progress.step(`starting a computation with a known result: ${steps} steps of orbits`);
  await begin(guest, 'orbits', steps);
  return { steps, pid: Number(await inGuest(guest, `cat ${directory}/orbits.pid`)) };
}

const orbitsResult = `grep . ${directory}/orbits.result`;

/** Whether the computation has come to its end. */
export async function hasOrbitsResult(guest: string): Promise<boolean> {
  return (await inGuest(guest, `${orbitsResult} || true`)) !== '';
}

/** The result of the computation, when it is there; empty if it does not come. */
export async function waitForOrbits(guest: string): Promise<string> {
  return (await until(guest, orbitsResult, COMPUTING_SECONDS * 5)).trim();
}

/** The look at the living kernel takes an emulated guest on a busy host minutes. */
const PROTECT_SECONDS = 1200;

/**
 * Protects what the scene started, each with its descendants, before the CPUs are busy: where all of them
 * compute, that takes minutes.
 */
export async function protectScene(guest: string, progress: Progress): Promise<void> {
  progress.step('protecting all of them');
  const pids = [
    "$(tmux -L demo display -p '#{pid}')",
    "$(tmux -L rescue display -p '#{pid}')",
    "$(redis-cli info server | tr -d '\\r' | sed -n 's/^process_id://p')",
    `$(cat ${directory}/counter.pid)`,
    `$(cat ${directory}/orbits.pid)`,
  ];
  const options = pids.map((pid) => `--pid ${pid}`).join(' ');
  await inGuest(guest, `otherworld protect ${options}`, PROTECT_SECONDS);
}

const startEditors = `
cd ${directory}
printf '${savedText.replaceAll('\n', '\\n')}' > letter.txt
cp letter.txt memo.txt
export LANG=C.UTF-8
tmux -L demo -f /dev/null new-session -d -s demo -n joe -x 80 -y 20 'exec joe letter.txt'
tmux -L rescue -f /dev/null new-session -d -s rescue -n joe -x 80 -y 20 'exec ./joe-with-procedure memo.txt'
for server in demo rescue; do tmux -L $server set-option -g remain-on-exit on; done
`;

/** To the end of the document first. */
async function typeInto(guest: string, server: string, window: string, text: string): Promise<void> {
  const pane = `tmux -L ${server} send-keys -t ${window}`;
  await until(guest, `tmux -L ${server} capture-pane -p -t ${window} | grep -q 'Dear reader'`, 30);
  await inGuest(guest, `${pane} C-k v && ${pane} -l '${text}'`);
  await until(guest, `tmux -L ${server} capture-pane -p -t ${window} | grep -qF '${text}'`, 30);
}

const fillRedis = `
for i = 1, ${redisStrings} do redis.call('SET', 'key:' .. i, redis.sha1hex('value of ' .. i)) end
for i = 1, 1000 do
  redis.call('HSET', 'hash', 'field:' .. i, i * i)
  redis.call('RPUSH', 'list', 'element ' .. i)
  redis.call('ZADD', 'sorted', i / 7, 'member:' .. i)
end
return redis.call('DBSIZE')`;

const startRedis = `
systemctl disable --quiet --now redis-server
cd ${directory}
redis-server --daemonize yes --save '' --appendonly no --dir ${directory} --logfile ${directory}/redis.log >/dev/null
`;

/** Typed line by line, as a person would. The values are random: only the process itself knows them. */
const pythonLines = [
  'import hashlib, random',
  'numbers = [random.random() for _ in range(10000)]',
  'secret = random.getrandbits(64)',
  'friends = {"left": secret, "right": [numbers, {1, 2, 3}]}',
  'state = lambda: hashlib.sha256(repr((friends, random.getstate())).encode()).hexdigest()',
];

async function startPython(guest: string): Promise<void> {
  await inGuest(guest, `tmux -L demo new-window -d -n python -c ${directory} 'exec python3 -q'`);
  await until(guest, "tmux -L demo capture-pane -p -t python | grep -q '>>>'", 60);
  for (const line of pythonLines) {
    await inGuest(
      guest,
      `tmux -L demo send-keys -t python -l '${line}' && tmux -L demo send-keys -t python Enter`,
    );
  }
  await askPython(guest, 'hello');
}

/**
 * Has the interpreter compute a digest of its variables.
 *
 * @param word printed before the digest; one that the screen does not show yet
 */
export async function askPython(guest: string, word: string): Promise<string> {
  const pane = '-L demo send-keys -t python';
  await inGuest(guest, `tmux ${pane} -l 'print("${word}", state())' && tmux ${pane} Enter`);
  const screen = await until(
    guest,
    `tmux -L demo capture-pane -p -t python | grep -E '^${word} [0-9a-f]{64}'`,
    60,
  );
  return screen.trim().split(' ')[1] ?? '';
}

/** What computes waits for its argument on a pipe: how many threads, how many steps. */
const waiting = {
  counter: `./counter --size 256 --nap 0 --status ${counterStatusPath} --threads $argument`,
  orbits: './orbits $argument orbits.result',
} as const;

const startWaiting = Object.entries(waiting)
  .map(([name, command]) => {
    const shell = `read argument <${name}.argument; exec ${command}`;
    return `
cd ${directory}
mkfifo ${name}.argument
setsid sh -c '${shell}' </dev/null >${name}.log 2>&1 &
echo $! >${name}.pid`;
  })
  .join('\n');

/**
 * Repeats a script until it succeeds and returns its output.
 * @param seconds of the guest's own time: a busy host makes nothing come too late
 * @throws LabError if it never does
 */
export async function until(guest: string, script: string, seconds: number): Promise<string> {
  const elapsed = guestClock(guestPid(guest) ?? 0);
  for (;;) {
    const { status, stdout } = await execCaptured(guest, ['sh', '-c', script], {
      timeoutSeconds: LOOK_SECONDS,
    });
    if (status === 0) return stdout;
    if (elapsed() > seconds) {
      throw new LabError(`in guest ${guest}: within ${seconds} s this did not come true: ${script}`);
    }
    await sleep(250);
  }
}
