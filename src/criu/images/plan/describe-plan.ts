import type { ProcessGroup } from '../../../model/group.ts';
import type { Process, SyscallOutcomeRecord, Thread } from '../../../model/process.ts';
import type { Preparation } from './preparation.ts';
import type { RestorePlan } from './restore-plan.ts';

/** How many objects a line names. */
const MOST_NAMED = 5;
/** /proc/PID/coredump_filter of a process that did not change it. */
const USUAL_COREDUMP_FILTER = 0x33;

/** How threads go on, for people. */
const goingOn: Readonly<Record<SyscallOutcomeRecord['outcome'], string>> = {
  resume: 'goes on where it was',
  result: 'has its result',
  restart: 'is made again',
  eintr: 'ends with EINTR',
  'in-doubt': 'is in doubt',
};

function listed(names: readonly (string | number)[]): string {
  const more = names.length - MOST_NAMED;
  return `${names.slice(0, MOST_NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** A line about things, or none if there are none. */
function line(names: readonly (string | number)[], text: (list: string) => string): string[] {
  return names.length === 0 ? [] : [text(listed(names))];
}

function describeConnections({ connections }: RestorePlan): string[] {
  if (connections === undefined) return [];
  const { count, addresses, connects } = connections;
  const through = addresses.length === 0 ? '' : `, through an interface with ${listed(addresses)}`;
  const what = [
    ...(count === 0 ? [] : [`makes ${counted(count, 'TCP connection')} again`]),
    ...(connects.length === 0 ? [] : [`begins ${counted(connects.length, 'TCP connection')} anew`]),
  ];
  return [`${what.join(', and ')}${through}`];
}

/** What is made, compared and set for a group as a whole: short lines. */
export function describeGroupPlan(
  plan: RestorePlan,
  preparation: Preparation,
  {
    segments,
    semaphores,
    messageQueues,
    sandbox,
  }: Pick<ProcessGroup, 'segments' | 'semaphores' | 'messageQueues' | 'sandbox'>,
): string[] {
  const paths = (entries: readonly { readonly path: string }[]): string[] => entries.map(({ path }) => path);
  const { directories, files, symlinks, names, checks, socketNames } = preparation;
  return [
    ...(sandbox === undefined
      ? []
      : [`is restored while the system boots, into the sandbox of ${sandbox.unit}`]),
    ...line(paths(directories), (list) => `makes directories: ${list}`),
    ...line(paths(files), (list) => `makes files of memory file systems with their content: ${list}`),
    ...line(paths([...symlinks, ...names]), (list) => `makes links: ${list}`),
    ...line(
      segments.map(({ id }) => id),
      (list) => `makes System V shared memory: ${list}`,
    ),
    ...line(
      semaphores.map(({ id }) => id),
      (list) => `makes System V semaphore sets: ${list}`,
    ),
    ...line(
      messageQueues.map(({ id }) => id),
      (list) => `makes System V message queues with their messages: ${list}`,
    ),
    ...(checks.length > 0 ? [`compares ${counted(checks.length, 'file')} with what they were`] : []),
    ...line(paths(socketNames), (list) => `looks whether the names of sockets lead to ${list}`),
    ...(plan.journalSockets.length > 0
      ? [`opens ${counted(plan.journalSockets.length, 'socket')} to the new journal`]
      : []),
    ...describeConnections(plan),
    ...(plan.rootPid === undefined
      ? []
      : [`makes a parent for all of them, ${plan.rootPid}, which ends as soon as it runs`]),
    ...line(plan.options, (list) => `calls criu restore with ${list}`),
    ...(plan.personality === 0 ? [] : [`sets personality 0x${plan.personality.toString(16)}`]),
  ];
}

/** What becomes of the system calls that the threads were in, alike ones in one line. */
function describeCalls(threads: readonly Thread[]): string[] {
  const alike = new Map<string, number[]>();
  for (const { tid, syscall } of threads) {
    if (syscall.syscall === undefined) continue;
    const key = `${syscall.syscall} ${goingOn[syscall.outcome]}`;
    const known = alike.get(key);
    if (known === undefined) alike.set(key, [tid]);
    else known.push(tid);
  }
  return [...alike].map(([what, tids]) => `${what}: thread${tids.length === 1 ? '' : 's'} ${listed(tids)}`);
}

function describeTimers({ posixTimers, intervalTimers }: Process): string[] {
  const armed = Object.entries(intervalTimers).filter(([, timer]) => timer.remainingMicroseconds > 0);
  return [
    ...line(
      posixTimers.map(({ id }) => id),
      (list) => `arms POSIX timers with what was left: ${list}`,
    ),
    ...line(
      armed.map(([name]) => name),
      (list) => `arms interval timers with what was left: ${list}`,
    ),
  ];
}

function describeSignals(plan: RestorePlan, process: Process): string[] {
  const { sharedPendingSignals, threads } = process;
  const pending = threads.reduce(
    (sum, thread) => sum + thread.pendingSignals.length,
    sharedPendingSignals.length,
  );
  const held = plan.signals.find(({ pid }) => pid === process.pid);
  return [
    ...(pending > 0 ? [`queues ${counted(pending, 'pending signal')}`] : []),
    ...(held !== undefined && held.traps.length > 0
      ? [`queues ${counted(held.traps.length, 'SIGTRAP')} after CRIU, which uses that signal itself`]
      : []),
    ...(held?.trapAction === undefined ? [] : ['sets what it does with SIGTRAP after CRIU']),
    ...line(
      held?.stoppedChildren.map(({ pid }) => pid) ?? [],
      (list) => `tells it of stopped children: ${list}`,
    ),
    ...(held?.stopSignal === undefined ? [] : [`stops it again, by signal ${held.stopSignal}`]),
  ];
}

function describeMemoryKeys({ memoryKeys }: RestorePlan, { pid }: Process): string[] {
  return memoryKeys
    .filter((own) => own.pid === pid)
    .map(
      ({ keys, areas }) =>
        `allocates memory protection keys ${listed(keys)}, for ${counted(areas.length, 'area')}`,
    );
}

function describeMemoryLocks({ memoryLocks }: RestorePlan, { pid }: Process): string[] {
  return memoryLocks
    .filter((own) => own.pid === pid)
    .flatMap(({ onFault, future }) => [
      ...(onFault.length === 0 ? [] : [`locks ${counted(onFault.length, 'area')}, page by page`]),
      ...(future === undefined ? [] : [`locks what it maps${future === 'on-fault' ? ', page by page' : ''}`]),
    ]);
}

function describeRings({ rings }: RestorePlan, { pid }: Process): string[] {
  const fds = rings.filter((ring) => ring.pid === pid).map(({ descriptors: [one] }) => `fd ${one?.fd}`);
  return line(fds, (list) => `makes io_urings and counts their requests there: ${list}`);
}

function describeThreads(plan: RestorePlan, { threads }: Process): string[] {
  const tids = new Set(threads.map(({ tid }) => tid));
  const own = (entries: readonly { readonly tid: number }[]): number[] =>
    entries.map(({ tid }) => tid).filter((tid) => tids.has(tid));
  return [
    ...line(own(plan.affinities), (list) => `sets the CPUs of threads: ${list}`),
    ...line(own(plan.ioPriorities), (list) => `sets the I/O priority of threads: ${list}`),
    ...line(own(plan.timerSlacks), (list) => `sets the timer slack of threads: ${list}`),
  ];
}

function describeDescriptors(plan: RestorePlan, { pid }: Process): string[] {
  const own = (entries: readonly { readonly pid: number; readonly fd: number }[]): string[] =>
    entries.filter((entry) => entry.pid === pid).map(({ fd }) => `fd ${fd}`);
  return [
    ...line(own(plan.sockets), (list) => `sets owners and options of sockets: ${list}`),
    ...line(own(plan.lateNames), (list) => `binds sockets to their paths: ${list}`),
    ...line(own(plan.brokenConnections), (list) => `resets connections that are lost: ${list}`),
    ...line(own(plan.wallClockTimers), (list) => `sets timers by the wall clock: ${list}`),
    ...line(own(plan.fifos), (list) => `sets flags and sizes of FIFOs: ${list}`),
    ...line(own(plan.exclusiveTerminals), (list) => `makes terminals exclusive: ${list}`),
    ...line(own(plan.pressureTriggers), (list) => `sets triggers for pressure: ${list}`),
  ];
}

/**
 * What is set of one process besides its memory, registers and descriptors, and how its threads go on: short
 * lines.
 */
export function describeProcessPlan(plan: RestorePlan, process: Process): string[] {
  const filter = plan.coredumpFilters.find(({ pid }) => pid === process.pid)?.filter ?? USUAL_COREDUMP_FILTER;
  return [
    ...describeCalls(process.threads),
    ...describeSignals(plan, process),
    ...describeTimers(process),
    ...(plan.mdwe.includes(process.pid) ? ['gives up making memory executable'] : []),
    ...describeMemoryLocks(plan, process),
    ...describeMemoryKeys(plan, process),
    ...describeRings(plan, process),
    ...describeThreads(plan, process),
    ...describeDescriptors(plan, process),
    ...(filter === USUAL_COREDUMP_FILTER ? [] : [`sets its coredump_filter to 0x${filter.toString(16)}`]),
  ];
}
