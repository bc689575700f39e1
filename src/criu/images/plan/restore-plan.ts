import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { ProcessGroup } from '../../../model/group.ts';
import type { Process } from '../../../model/process.ts';
import { type LateOptionName, lateOptions } from '../../../model/socket-option.ts';
import { memoryKeysOf, memoryKeysSchema } from '../../restore/memory-keys.ts';
import { journalSocketSchema, journalSocketsOf, restoreOptions } from '../files/index.ts';
import { readImageText } from '../image.ts';
import { neededNumbers } from './numbers.ts';
import { signalsOf, signalsSchema } from './signals.ts';

const FILE_NAME = 'restore.json';
const SECOND = 1_000_000_000n;

const optionName = z.custom<LateOptionName>((name) => typeof name === 'string' && name in lateOptions);

const timespec = z.strictObject({ seconds: z.int(), nanoseconds: z.int() });

const planSchema = z.strictObject({
  /** Processes that must be there afterwards. */
  pids: z.array(z.int()),
  /** Numbers that have to be free: of processes, threads, and whom CRIU makes for a moment. */
  numbers: z.array(z.int()),
  /** The fabricated parent, which ends as soon as it runs. */
  rootPid: z.int().optional(),
  /** Options of `criu restore` that the group asks for. */
  options: z.array(z.string()),
  /** Sockets to the journal, which is another one now. */
  journalSockets: z.array(journalSocketSchema),
  /** personality(2) of all processes of the group. */
  personality: z.int(),
  /** CPUs that threads may use, for those that may not use all. */
  affinities: z.array(z.strictObject({ tid: z.int(), cpus: z.array(z.int()) })),
  /** ioprio_set(2) of threads that have a priority of their own. */
  ioPriorities: z.array(z.strictObject({ tid: z.int(), priority: z.int() })),
  /** Nanoseconds, for threads with another timer slack than they started with. */
  timerSlacks: z.array(z.strictObject({ tid: z.int(), nanoseconds: z.int() })),
  /** /proc/PID/coredump_filter. */
  coredumpFilters: z.array(z.strictObject({ pid: z.int(), filter: z.int() })),
  /** Owners of sockets, which CRIU makes as root, and options that it has no field for; a process and a descriptor that lead there. */
  sockets: z.array(
    z.strictObject({
      pid: z.int(),
      fd: z.int(),
      uid: z.int(),
      gid: z.int(),
      options: z.array(z.strictObject({ name: optionName, value: z.union([z.int(), z.string()]) })),
    }),
  ),
  /** A process and a descriptor that lead to a terminal that nobody else may open (TIOCEXCL). */
  exclusiveTerminals: z.array(z.strictObject({ pid: z.int(), fd: z.int() })),
  /** Absolute timerfds on the wall clock; see `WallClockTimer` of the model. */
  wallClockTimers: z.array(
    z.strictObject({
      pid: z.int(),
      fd: z.int(),
      flags: z.int(),
      expires: timespec,
      interval: timespec,
      ticks: z.int(),
      waitsForRead: z.boolean(),
    }),
  ),
  /** FIFOs that CRIU opens as files: status flags (F_SETFL) and size (F_SETPIPE_SZ). */
  fifos: z.array(z.strictObject({ pid: z.int(), fd: z.int(), flags: z.int(), capacityBytes: z.int() })),
  memoryKeys: z.array(memoryKeysSchema),
  /** Signals of every process, children before their parents. */
  signals: z.array(signalsSchema),
});

/** What restoring needs to know besides CRIU's images, and what CRIU leaves to be done. */
export type RestorePlan = z.infer<typeof planSchema>;

/** A process of the group, and a descriptor in it, that lead to an open file; empty if none does. */
function holderOf({ files, processes }: ProcessGroup, id: number): { pid: number; fd: number }[] {
  for (const { filesId, descriptors } of files.tables) {
    const fd = descriptors.find(({ fileId }) => fileId === id)?.fd;
    const pid = processes.find((process) => process.filesId === filesId)?.pid;
    if (fd !== undefined && pid !== undefined) return [{ pid, fd }];
  }
  return [];
}

function socketsOf(group: ProcessGroup): RestorePlan['sockets'] {
  return group.files.files.flatMap((file) => {
    if (!('lateOptions' in file)) return [];
    const { lateOptions: options, uid, gid } = file;
    if (options.length === 0 && uid === 0 && gid === 0) return [];
    return holderOf(group, file.id).map((holder) => ({ ...holder, uid, gid, options: [...options] }));
  });
}

function exclusiveTerminalsOf(group: ProcessGroup): RestorePlan['exclusiveTerminals'] {
  const { files, terminals } = group.files;
  return terminals
    .filter(({ exclusive }) => exclusive)
    .flatMap(({ id }) => {
      const file = files.find((candidate) => candidate.type === 'terminal' && candidate.terminalId === id);
      return file === undefined ? [] : holderOf(group, file.id);
    });
}

function fifosOf(group: ProcessGroup): RestorePlan['fifos'] {
  return group.files.files.flatMap((file) => {
    if (file.type !== 'fifo' || !file.waitsForWriter) return [];
    const capacityBytes = group.files.pipes.find(({ id }) => id === file.pipeId)?.capacityBytes ?? 0;
    return holderOf(group, file.id).map((holder) => ({ ...holder, flags: file.flags, capacityBytes }));
  });
}

function timespecOf(nanoseconds: bigint): z.infer<typeof timespec> {
  return { seconds: Number(nanoseconds / SECOND), nanoseconds: Number(nanoseconds % SECOND) };
}

function wallClockTimersOf(group: ProcessGroup): RestorePlan['wallClockTimers'] {
  return group.files.files.flatMap((file) => {
    if (file.type !== 'timerfd' || file.wallClock === undefined) return [];
    const { flags, expiresNanoseconds, ticks, waitsForRead } = file.wallClock;
    const expires = timespecOf(expiresNanoseconds);
    const interval = timespecOf(file.intervalNanoseconds);
    return holderOf(group, file.id).map((holder) => ({
      ...{ ...holder, flags, expires, interval, waitsForRead },
      ticks: Number(ticks),
    }));
  });
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
  const plan: RestorePlan = {
    pids: group.processes.filter(({ state }) => state !== 'zombie').map(({ pid }) => pid),
    numbers: neededNumbers(processes),
    ...(processes.length > group.processes.length ? { rootPid: processes[0]?.pid } : {}),
    options: restoreOptions(group.files),
    journalSockets: journalSocketsOf(group.files),
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
    sockets: socketsOf(group),
    exclusiveTerminals: exclusiveTerminalsOf(group),
    wallClockTimers: wallClockTimersOf(group),
    fifos: fifosOf(group),
    memoryKeys: memoryKeysOf(group),
    signals: signalsOf(group),
  };
  writeFileSync(join(directory, FILE_NAME), `${JSON.stringify(plan, null, 2)}\n`, {
    flag: 'wx',
    mode: 0o600,
  });
}

/** Reads the plan; throws if the directory has none or it is not one. */
export function readRestorePlan(directory: string): RestorePlan {
  return planSchema.parse(JSON.parse(readImageText(join(directory, FILE_NAME))));
}
