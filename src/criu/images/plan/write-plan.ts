import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ProcessGroup } from '../../../model/group.ts';
import type { Process } from '../../../model/process.ts';
import { lockOptions } from '../files/locks.ts';
import { connectionOptions } from '../files/tcp-stream.ts';
import { aioRingEntries } from '../mm.ts';
import { connectionsOf } from './connections.ts';
import { type HolderOf, holdersIn } from './holder-of.ts';
import { journalSocketsOf } from './journal-sockets.ts';
import { lateNamesOf } from './late-names.ts';
import { memoryKeysOf } from './memory-keys.ts';
import { neededNumbers } from './numbers.ts';
import { type MemoryLocks, RESTORE_PLAN, type RestorePlan } from './restore-plan.ts';
import { ringsOf } from './rings.ts';
import { signalsOf } from './signals.ts';

const SECOND = 1_000_000_000n;

type Timespec = RestorePlan['wallClockTimers'][number]['expires'];

function socketsOf(group: ProcessGroup, holderOf: HolderOf): RestorePlan['sockets'] {
  return group.files.files.flatMap((file) => {
    if (!('lateOptions' in file)) return [];
    const { lateOptions: options, uid, gid } = file;
    if (options.length === 0 && uid === 0 && gid === 0) return [];
    return holderOf(file.id).map((holder) => ({ ...holder, uid, gid, options: [...options] }));
  });
}

function brokenConnectionsOf(group: ProcessGroup, holderOf: HolderOf): RestorePlan['brokenConnections'] {
  return group.files.files.flatMap((file) => {
    if (file.type !== 'inet' || file.broken === undefined) return [];
    const { broken, connection, family } = file;
    const [holder] = holderOf(file.id);
    if (holder === undefined) throw new Error('a connection that is lost has no descriptor to reset it by');
    return [{ ...holder, as: broken, ...(connection === undefined ? { unmade: family } : {}) }];
  });
}

function exclusiveTerminalsOf(group: ProcessGroup, holderOf: HolderOf): RestorePlan['exclusiveTerminals'] {
  const { files, terminals } = group.files;
  return terminals
    .filter(({ exclusive }) => exclusive)
    .flatMap(({ id }) => {
      const file = files.find((candidate) => candidate.type === 'terminal' && candidate.terminalId === id);
      return file === undefined ? [] : [...holderOf(file.id)];
    });
}

function fifosOf(group: ProcessGroup, holderOf: HolderOf): RestorePlan['fifos'] {
  const capacities = new Map(group.files.pipes.map(({ id, capacityBytes }) => [id, capacityBytes]));
  return group.files.files.flatMap((file) => {
    if (file.type !== 'fifo' || !file.waitsForWriter) return [];
    const capacityBytes = capacities.get(file.pipeId) ?? 0;
    return holderOf(file.id).map((holder) => ({ ...holder, flags: file.flags, capacityBytes }));
  });
}

function pressureTriggersOf(group: ProcessGroup, holderOf: HolderOf): RestorePlan['pressureTriggers'] {
  return group.files.files.flatMap((file) => {
    if (file.type !== 'path' || file.pressureTrigger === undefined) return [];
    const text = file.pressureTrigger;
    const [holder] = holderOf(file.id);
    if (holder === undefined) throw new Error('a trigger for pressure has no descriptor to set it by');
    return [{ ...holder, text }];
  });
}

function timespecOf(nanoseconds: bigint): Timespec {
  return { seconds: Number(nanoseconds / SECOND), nanoseconds: Number(nanoseconds % SECOND) };
}

function wallClockTimersOf(group: ProcessGroup, holderOf: HolderOf): RestorePlan['wallClockTimers'] {
  return group.files.files.flatMap((file) => {
    if (file.type !== 'timerfd' || file.wallClock === undefined) return [];
    const { flags, expiresNanoseconds, ticks, waitsForRead } = file.wallClock;
    const expires = timespecOf(expiresNanoseconds);
    const interval = timespecOf(file.intervalNanoseconds);
    return holderOf(file.id).map((holder) => ({
      ...{ ...holder, flags, expires, interval, waitsForRead },
      ticks: Number(ticks),
    }));
  });
}

function memoryLocksOf({ pid, memory }: Process): MemoryLocks[] {
  const onFault = (memory?.vmas ?? [])
    .filter((vma) => vma.lockedOnFault === true)
    .map(({ start, end }) => ({ start, bytes: end - start }));
  const future = memory?.futureLock;
  if (onFault.length === 0 && future === undefined) return [];
  return [{ pid, onFault, ...(future === undefined ? {} : { future }) }];
}

/** A thread takes CRIU more than a descriptor: a clone, its registers, timers and signals. */
const ENTRIES_OF_THREAD = 10;

/** See `entries` of the plan. */
function entriesOf({ processes, files }: ProcessGroup): number {
  const sum = <T>(list: readonly T[], numberOf: (one: T) => number): number =>
    list.reduce((all, one) => all + numberOf(one), 0);
  const ofProcesses = sum(
    processes,
    ({ threads, memory }) => ENTRIES_OF_THREAD * threads.length + (memory?.vmas.length ?? 0),
  );
  return ofProcesses + files.files.length + sum(files.tables, ({ descriptors }) => descriptors.length);
}

function aioRequestsOf({ processes }: ProcessGroup): number {
  const rings = processes.flatMap(({ memory }) => aioRingEntries(memory?.vmas ?? []));
  return rings.reduce((sum, { nrReq = 0 }) => sum + nrReq, 0);
}

/**
 * Writes the plan next to the images.
 * @param processes as in the images: with the fabricated parent before the others, if the group has one
 */
export function writeRestorePlan(
  directory: string,
  group: ProcessGroup,
  processes: readonly Process[] = group.processes,
): void {
  const threads = group.processes.flatMap((process) => process.threads);
  const holderOf = holdersIn(group);
  const plan: RestorePlan = {
    pids: group.processes.filter(({ state }) => state !== 'zombie').map(({ pid }) => pid),
    numbers: neededNumbers(processes),
    entries: entriesOf(group),
    ...(processes.length > group.processes.length ? { rootPid: processes[0]?.pid } : {}),
    options: [...lockOptions(group.files), ...connectionOptions(group.files)],
    journalSockets: journalSocketsOf(group.files),
    connections: connectionsOf(group, holderOf),
    personality: group.processes[0]?.personality ?? 0,
    affinities: threads.flatMap(({ tid, cpus }) => (cpus === undefined ? [] : [{ tid, cpus: [...cpus] }])),
    ioPriorities: threads.flatMap(({ tid, ioPriority }) =>
      ioPriority === undefined ? [] : [{ tid, priority: ioPriority }],
    ),
    timerSlacks: threads.flatMap(({ tid, timerSlackNanoseconds }) =>
      timerSlackNanoseconds === undefined ? [] : [{ tid, nanoseconds: timerSlackNanoseconds }],
    ),
    coredumpFilters: group.processes.flatMap(({ pid, memory }) =>
      memory?.coredumpFilter === undefined ? [] : [{ pid, filter: memory.coredumpFilter }],
    ),
    sockets: socketsOf(group, holderOf),
    brokenConnections: brokenConnectionsOf(group, holderOf),
    lateNames: lateNamesOf(group, holderOf),
    exclusiveTerminals: exclusiveTerminalsOf(group, holderOf),
    wallClockTimers: wallClockTimersOf(group, holderOf),
    fifos: fifosOf(group, holderOf),
    pressureTriggers: pressureTriggersOf(group, holderOf),
    rings: ringsOf(group),
    memoryKeys: memoryKeysOf(group),
    aioRequests: aioRequestsOf(group),
    mdwe: group.processes.flatMap(({ pid, memory }) => (memory?.refusesExecGain === true ? [pid] : [])),
    memoryLocks: group.processes.flatMap(memoryLocksOf),
    signals: signalsOf(group),
  };
  writeFileSync(join(directory, RESTORE_PLAN), `${JSON.stringify(plan, null, 2)}\n`, {
    flag: 'wx',
    mode: 0o600,
  });
}
