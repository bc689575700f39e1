import * as z from 'zod';
import { type LateOptionName, lateOptions } from '../../../model/socket-option.ts';
import { fileIdentity } from './preparation.ts';

/** Name of the plan's file, beside the images. */
export const RESTORE_PLAN = 'restore.json';

const optionName = z.custom<LateOptionName>((name) => typeof name === 'string' && name in lateOptions);

const timespec = z.strictObject({ seconds: z.int(), nanoseconds: z.int() });

/** A 64-bit number, of which a part may not fit into JSON's. */
const word = z.string().regex(/^0x[0-9a-f]+$/);

const commonOfJournalSockets = {
  /** By this number CRIU's images know the socket. */
  inode: z.int(),
  nonblocking: z.boolean(),
};

/** A socket to the journal, for which CRIU is handed another one. */
const journalSocket = z.discriminatedUnion('kind', [
  z.strictObject({ ...commonOfJournalSockets, kind: z.literal('datagram') }),
  z.strictObject({
    ...commonOfJournalSockets,
    kind: z.literal('stream'),
    identifier: z.string().regex(/^[^\0\n]*$/),
    level: z.int().min(0).max(7),
    levelPrefix: z.boolean(),
  }),
]);

/** A socket that is to be bound, and may have to listen: a process and a descriptor that lead to it. */
const lateName = z.strictObject({
  pid: z.int(),
  fd: z.int(),
  /** The name that it has, as getsockname(2) tells it: a path in UTF-8. */
  name: z.string().min(1),
  /** Where its file is. */
  path: z.string().startsWith('/'),
  identity: fileIdentity,
  /** The directory that the file is in. */
  directory: fileIdentity,
  /** Of a socket that listens. */
  backlog: z.int().optional(),
});

/** A socket that is to be connected once more: a process and a descriptor that lead to it. */
const connect = z.strictObject({
  pid: z.int(),
  fd: z.int(),
  /** Status flags of its open file. */
  flags: z.int(),
  /** AF_INET 2 or AF_INET6 10. */
  family: z.union([z.literal(2), z.literal(10)]),
  /** In hexadecimal, as the socket names its peer: 4 or 16 bytes. */
  address: z.string().regex(/^(?:[0-9a-f]{8}|[0-9a-f]{32})$/),
  port: z.int(),
  /** The peer, and the own address that it is to see; undefined within the machine. */
  route: z.strictObject({ to: z.string(), from: z.string() }).optional(),
});

/** Memory protection keys that a process had allocated, and where it has them. */
const memoryKeys = z.strictObject({
  pid: z.int(),
  /** Rising. */
  keys: z.array(z.int()),
  /** PKRU of the first thread, which has it again: its rights to all keys. */
  pkru: z.int(),
  /** Areas with a key: user address, length, PROT_READ 1 | PROT_WRITE 2 | PROT_EXEC 4. */
  areas: z.array(z.strictObject({ start: z.int(), bytes: z.int(), prot: z.int(), key: z.int() })),
});

/** How a process locks memory that CRIU leaves unlocked. */
const memoryLocks = z.strictObject({
  pid: z.int(),
  /** Areas of which each page is locked when it is first used: user address, length. */
  onFault: z.array(z.strictObject({ start: z.int(), bytes: z.int() })),
  /** What it maps from now on (mlockall(2) with MCL_FUTURE): as a whole, or as the areas above. */
  future: z.enum(['at-once', 'on-fault']).optional(),
});

const ringOffsets = z.strictObject({
  ...{ sqHead: z.int(), sqTail: z.int(), sqMask: z.int(), sqEntries: z.int() },
  ...{ sqFlags: z.int(), sqDropped: z.int(), sqArray: z.int() },
  ...{ cqHead: z.int(), cqTail: z.int(), cqMask: z.int(), cqEntries: z.int() },
  ...{ cqOverflow: z.int(), cqes: z.int(), cqFlags: z.int() },
});

/** An io_uring of a process; see `IoUring` of the model. */
const ring = z.strictObject({
  pid: z.int(),
  /** Rising. */
  descriptors: z.array(z.strictObject({ fd: z.int(), closeOnExec: z.boolean() })).min(1),
  ...{ setup: z.int(), sqEntries: z.int(), cqEntries: z.int() },
  ...{ requests: z.int(), completions: z.int(), unread: z.int() },
  issuer: z.int().optional(),
  offsets: ringOffsets,
  /** Its areas: user address, length, offset for mmap(2), and advice as numbers of madvise(2). */
  areas: z.array(
    z.strictObject({
      ...{ start: z.int(), bytes: z.int(), offset: z.int() },
      part: z.enum(['rings', 'entries']),
      advice: z.array(z.int()),
    }),
  ),
  /** The file beside the images with the rings, and then the entries. */
  content: z.string().regex(/^io-uring-\d+$/),
  ...{ ringsBytes: z.int(), entriesBytes: z.int() },
});

/** Signals of a process that are to be put right when CRIU is done with it. */
const signals = z.strictObject({
  pid: z.int(),
  /** SIGTRAPs that are pending, for the process or for one thread; siginfo_t in base64. */
  traps: z.array(z.strictObject({ tid: z.int().optional(), siginfo: z.base64() })),
  /** What the process does with SIGTRAP, unless that is the default. */
  trapAction: z.strictObject({ handler: word, flags: word, restorer: word, mask: word }).optional(),
  /** Children that are stopped; `isKnown`: wait(2) has told so. */
  stoppedChildren: z.array(z.strictObject({ pid: z.int(), isKnown: z.boolean() })),
  /** SIGCHLD is pending, or is to be: nothing that a stopped child sends may be taken away. */
  keepsChildSignal: z.boolean(),
  /** The process is to be stopped, and seems to have been by this signal. */
  stopSignal: z.int().optional(),
});

export const restorePlanSchema = z.strictObject({
  /** Processes that must be there afterwards. */
  pids: z.array(z.int()),
  /** Numbers that have to be free: of processes, threads, and whom CRIU makes for a moment. */
  numbers: z.array(z.int()),
  /** What CRIU makes one by one: descriptors, open files, areas, and ten for each thread. */
  entries: z.int(),
  /** The fabricated parent, which ends as soon as it runs. */
  rootPid: z.int().optional(),
  /** Options of `criu restore` that the group asks for. */
  options: z.array(z.string()),
  /** Sockets to the journal, which is another one now. */
  journalSockets: z.array(journalSocket),
  /**
   * TCP connections: how many, the addresses that they have on the machine, but those of loopback, and those
   * that are begun anew.
   */
  connections: z
    .strictObject({ count: z.int(), addresses: z.array(z.string()), connects: z.array(connect) })
    .optional(),
  /**
   * Sockets whose connection is lost, and which are reset before they can be used: a process and a descriptor
   * that lead there, and whether the connection had been made. With a family, CRIU does not make a connection
   * that can be reset.
   */
  brokenConnections: z.array(
    z.strictObject({
      pid: z.int(),
      fd: z.int(),
      as: z.enum(['connected', 'connecting']),
      unmade: z.union([z.literal(2), z.literal(10)]).optional(),
    }),
  ),
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
  /**
   * Owners of sockets, which CRIU makes as root, and options that it has no field for; a process and a
   * descriptor that lead there.
   */
  sockets: z.array(
    z.strictObject({
      pid: z.int(),
      fd: z.int(),
      uid: z.int(),
      gid: z.int(),
      options: z.array(z.strictObject({ name: optionName, value: z.union([z.int(), z.string()]) })),
    }),
  ),
  /** Sockets that CRIU makes without a name, because others than root can write to where their files are. */
  lateNames: z.array(lateName),
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
  /** A process and a descriptor that lead to a file of pressure, and what sets its trigger. */
  pressureTriggers: z.array(
    z.strictObject({ pid: z.int(), fd: z.int(), text: z.string().regex(/^(some|full) \d+ \d+$/) }),
  ),
  rings: z.array(ring),
  memoryKeys: z.array(memoryKeys),
  /** Requests that CRIU asks io_setup(2) for, in all contexts together. */
  aioRequests: z.int(),
  /** Processes that have given up making memory executable (PR_SET_MDWE). */
  mdwe: z.array(z.int()),
  memoryLocks: z.array(memoryLocks),
  /** Signals of every process, children before their parents. */
  signals: z.array(signals),
});

/** What restoring needs to know besides CRIU's images, and what CRIU leaves to be done. */
export type RestorePlan = z.infer<typeof restorePlanSchema>;
export type PlannedConnect = z.infer<typeof connect>;
export type PlannedJournalSocket = z.infer<typeof journalSocket>;
export type MemoryLocks = z.infer<typeof memoryLocks>;
export type PlannedName = z.infer<typeof lateName>;
export type PlannedRing = z.infer<typeof ring>;
export type MemoryKeysPlan = z.infer<typeof memoryKeys>;
export type SignalsPlan = z.infer<typeof signals>;
