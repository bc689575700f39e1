import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { INCIDENTS_DIRECTORY } from '../../../src/config/paths.ts';
import type { IncidentReport, ProcessReport } from '../../../src/report/schema.ts';
import { messageOf } from '../../../src/system/thrown.ts';
import { makeCacheDirectory } from '../../cache.ts';
import { copyFiles } from '../../channel.ts';
import { inGuest, until } from '../../demo/scene.ts';
import { LabError } from '../../error.ts';
import { guestPaths, guestPid } from '../../guest.ts';
import { guestClock } from '../../guest-time.ts';
import { freePort } from '../../ports.ts';
import type { Progress } from '../../progress.ts';
import {
  type CampaignOptions,
  countsOf,
  type Moment,
  panicAndReport,
  type ReportCounts,
  randomMoment,
  runPanics,
  withArmedGuest,
} from '../panics.ts';
import { FILE } from './bulk.ts';
import type { Conversation } from './conversation.ts';
import { type Named, namedFate, outcomeOf, type TalkOutcome } from './outcome.ts';
import { beginTalks, type Ports, SERVER_PORTS, type ServerName, serverNames, type Talk } from './talks.ts';
import { goesOnSince, waitForAll } from './watch.ts';

/** What is random of one panic. */
interface Plan extends Moment {
  readonly cpus: number;
  /** Whether the servers may lose connections (`protect --allow-loss connections`). */
  readonly mayLose: boolean;
  /** Of what the streams have in them. */
  readonly streamSeed: number;
}

/** One panic. */
export interface TrafficOutcome extends Plan, ReportCounts {
  readonly incident: string;
  readonly talks: readonly TalkOutcome[];
  /** Where the incident and the console are kept, if something is wrong. */
  readonly evidence: string | undefined;
}

const PACKAGES = ['memcached', 'nginx', 'python3', 'redis-server'];
const DIRECTORY = '/srv/traffic';
const CPUS = [2, 4] as const;
const LIMITS = { earliestSeconds: 3, latestSeconds: 20 };
const ASK_MILLISECONDS = 5;
/** A conversation that makes no progress for so long hangs: of the guest's own time, after its report. */
const HANG_SECONDS = 300;
/** Time for each conversation to begin. */
const BEGIN_SECONDS = 120;
/** It looks at the living kernel, which takes a guest on a busy host long. */
const PROTECT_SECONDS = 600;

const detached = (command: string, name: string): string =>
  `setsid ${command} </dev/null >${DIRECTORY}/${name}.log 2>&1 & echo $! >${DIRECTORY}/${name}.pid`;

/**
 * nginx gives up who takes nothing for a minute, and an outage takes longer. By default memcached and Redis
 * listen for their own machine alone, and Debian's Redis has a sandbox that does not come back.
 */
const START = `
cd ${DIRECTORY}
systemctl disable -q --now redis-server
redis-server --save "" --daemonize yes --bind 0.0.0.0 --protected-mode no --pidfile ${DIRECTORY}/redis.pid >/dev/null
${detached(`python3 ${DIRECTORY}/servers.py log ${SERVER_PORTS.log}`, 'log')}
${detached(`python3 ${DIRECTORY}/servers.py stream ${SERVER_PORTS.stream}`, 'stream')}
sed -i 's/^-l 127.0.0.1/-l 0.0.0.0/' /etc/memcached.conf
python3 ${DIRECTORY}/servers.py file ${FILE.seed} ${FILE.bytes} /var/www/html/${FILE.name}
printf 'send_timeout 1h;\\nkeepalive_timeout 1h;\\nclient_header_timeout 1h;\\n' >/etc/nginx/conf.d/traffic.conf
sed -i '/keepalive_timeout/d' /etc/nginx/nginx.conf
systemctl restart memcached nginx
sync`;

const pidsOfUnit = (unit: string): string => `cat /sys/fs/cgroup/system.slice/${unit}.service/cgroup.procs`;
const pidFile = (name: string): string => `cat ${DIRECTORY}/${name}.pid`;
/** Scripts that tell the processes of each server. */
const PIDS: Readonly<Record<ServerName, string>> = {
  log: pidFile('log'),
  stream: pidFile('stream'),
  redis: pidFile('redis'),
  memcached: pidsOfUnit('memcached'),
  nginx: pidsOfUnit('nginx'),
};

/**
 * Runs the panics, each in a guest of its own, in the middle of the traffic between its servers and clients
 * outside of it.
 * @param told after each
 * @throws LabError if a guest or a crash world does not come as far as a report, or if something is wrong
 * before the panic
 */
export async function runTrafficCampaign(
  options: CampaignOptions,
  progress: Progress,
  told: (outcome: TrafficOutcome) => void = () => undefined,
): Promise<TrafficOutcome[]> {
  const machine = { release: options.release, packages: PACKAGES, append: '', quick: true };
  return runPanics(
    options,
    progress,
    planOf,
    async (name, plan) => {
      const ports = await choosePorts();
      const forwards = serverNames.map((server) => ({ host: ports[server], guest: SERVER_PORTS[server] }));
      const sizes = { memoryMiB: 2048, cpus: plan.cpus, crashKernelMiB: 320 };
      return withArmedGuest({ name, ...machine, ...sizes, forwards }, progress, (guest) =>
        onePanic(guest, ports, plan, progress),
      );
    },
    told,
  );
}

function planOf(random: () => number): Plan {
  const cpus = CPUS[Math.floor(random() * CPUS.length)] ?? CPUS[0];
  const mayLose = random() < 0.5;
  const streamSeed = Math.floor(random() * 2 ** 31);
  return { ...randomMoment(random, cpus, LIMITS), cpus, mayLose, streamSeed };
}

async function choosePorts(): Promise<Ports> {
  const chosen = new Set<number>();
  while (chosen.size < serverNames.length) chosen.add(await freePort());
  const [log = 0, stream = 0, redis = 0, memcached = 0, nginx = 0] = chosen;
  return { log, stream, redis, memcached, nginx };
}

async function onePanic(
  guest: string,
  ports: Ports,
  plan: Plan,
  progress: Progress,
): Promise<TrafficOutcome> {
  const pids = await startServers(guest, plan.mayLose);
  const talks = await beginTalks(ports, plan.streamSeed);
  const asking = setInterval(() => {
    for (const { conversation } of talks) conversation.ask();
  }, ASK_MILLISECONDS);
  try {
    await haveBegun(guest, talks);
    await sleep(plan.afterSeconds * 1000);
    checkSound(talks);
    const report = await panicAndReport(guest, plan, progress);
    progress.step('traffic goes on over the same connections');
    const outcomes = await afterwards(guest, talks, report, { pids, mayLose: plan.mayLose });
    const isRight = outcomes.every(({ fate, faults }) => fate !== 'lost' && faults.length === 0);
    const evidence = isRight ? undefined : await keepEvidence(guest, report.id);
    return { ...plan, ...countsOf(report), incident: report.id, talks: outcomes, evidence };
  } finally {
    clearInterval(asking);
    for (const { conversation } of talks) conversation.wire.close();
  }
}

/** @returns the processes of each server */
async function startServers(guest: string, mayLose: boolean): Promise<Map<ServerName, number[]>> {
  await inGuest(guest, `mkdir -p ${DIRECTORY}`);
  await copyFiles(guest, join(import.meta.dirname, 'servers.py'), `${guest}:${DIRECTORY}/servers.py`);
  await inGuest(guest, START);
  const listening = Object.values(SERVER_PORTS).map((port) => `ss -tlnH sport = :${port} | grep -q .`);
  await until(guest, listening.join(' && '), BEGIN_SECONDS);
  const pids = new Map<ServerName, number[]>();
  for (const server of serverNames) {
    const text = await inGuest(guest, PIDS[server]);
    pids.set(server, text.trim().split(/\s+/).map(Number));
  }
  const own = ['log', 'stream', 'redis'] as const;
  const named = own.map((server) => `--pid ${pids.get(server)?.join(' ')}`).join(' ');
  const loss = mayLose ? ' --allow-loss connections' : '';
  await inGuest(guest, `otherworld protect ${named} --unit memcached --unit nginx${loss}`, PROTECT_SECONDS);
  return pids;
}

/** Waits until each conversation has had an answer. */
async function haveBegun(guest: string, talks: readonly Talk[]): Promise<void> {
  const elapsed = guestClock(guestPid(guest) ?? 0);
  const conversations = talks.map(({ conversation }) => conversation);
  const isThere = goesOnSince(conversations);
  for (const [{ name }, why] of await waitForAll(conversations, isThere, BEGIN_SECONDS, elapsed))
    throw new LabError(`${name}, before the panic: ${why}`);
}

/** @throws LabError if something is wrong before the panic: that is no fault of a panic */
function checkSound(talks: readonly Talk[]): void {
  for (const { conversation } of talks) {
    const { name, wire, faults } = conversation;
    const wrong = faults[0] ?? (wire.ended === undefined ? undefined : `it was ended (${wire.ended})`);
    if (wrong !== undefined) throw new LabError(`${name}, before the panic: ${wrong}`);
  }
}

/** Lets traffic go on after the report, ends it, and compares. */
async function afterwards(
  guest: string,
  talks: readonly Talk[],
  report: IncidentReport,
  { pids, mayLose }: { readonly pids: ReadonlyMap<ServerName, readonly number[]>; readonly mayLose: boolean },
): Promise<TalkOutcome[]> {
  const named = new Map<Talk, Named>();
  for (const talk of talks) {
    const processes = processesOf(report, pids.get(talk.server) ?? []);
    named.set(talk, namedFate(processes, talk.conversation.wire.port, mayLose));
  }
  const fateOf = (talk: Talk): Named => named.get(talk) ?? { fate: 'lost', why: [] };
  for (const talk of talks) {
    const source = talks.find(({ conversation }) => conversation === talk.source);
    if (fateOf(talk).fate !== 'kept' || source === undefined || fateOf(source).fate === 'kept') continue;
    named.set(talk, { fate: 'quiet', why: [`${source.conversation.name} was reset`] });
  }
  const kept = talks.filter((talk) => fateOf(talk).fate === 'kept').map(({ conversation }) => conversation);
  const elapsed = guestClock(guestPid(guest) ?? 0);
  const failed = await waitForAll(kept, goesOnSince(kept), HANG_SECONDS, elapsed);
  const going = kept.filter((conversation) => !failed.has(conversation));
  for (const { conversation } of talks) conversation.finish();
  for (const [conversation, why] of await waitForAll(going, ({ isDone }) => isDone, HANG_SECONDS, elapsed))
    failed.set(conversation, why);
  const isKept = (one: Conversation): boolean => going.includes(one) && !failed.has(one);
  const outcomes: TalkOutcome[] = [];
  for (const talk of talks)
    outcomes.push(await judged(talk, fateOf(talk), failed.get(talk.conversation), isKept));
  return outcomes;
}

function processesOf(report: IncidentReport, pids: readonly number[]): ProcessReport[] {
  return report.processes.filter(({ pid }) => pids.includes(pid));
}

/** Compares the record with the server's state, if the server came back. */
async function judged(
  talk: Talk,
  named: Named,
  failure: string | undefined,
  isKept: (conversation: Conversation) => boolean,
): Promise<TalkOutcome> {
  if (named.fate === 'refused' || named.fate === 'lost') return outcomeOf(talk, named, []);
  const faults = await talk.compare(isKept).catch((error: unknown) => [messageOf(error)]);
  return failure === undefined
    ? outcomeOf(talk, named, faults)
    : outcomeOf(talk, { ...named, fate: 'lost' }, [failure, ...faults]);
}

/** Copies the incident and the console out of the guest. @returns where to */
async function keepEvidence(guest: string, incident: string): Promise<string> {
  const directory = makeCacheDirectory('evidence', `${guest}-${incident}`);
  await copyFiles(guest, `${guest}:${INCIDENTS_DIRECTORY}/${incident}`, directory);
  cpSync(guestPaths(guest).consoleLog, join(directory, 'console.log'));
  return directory;
}
