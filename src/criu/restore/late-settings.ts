import { closeSync, fchownSync, writeFileSync } from 'node:fs';
import { type LateOption, lateOptions } from '../../model/socket-option.ts';
import { textToBytes } from '../../system/byte-text.ts';
import { F_SETFL, F_SETPIPE_SZ, fcntl, ioctl, takeDescriptor } from '../../system/descriptors.ts';
import { errnoText } from '../../system/errno.ts';
import { setAffinity, setIoPriority } from '../../system/process-settings.ts';
import { setsockopt } from '../../system/sockets.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { setWallClockTimers } from './wall-clock-timers.ts';

const TIOCEXCL = 0x540c;

function setAffinities({ affinities }: RestorePlan): string[] {
  return affinities.flatMap(({ tid, cpus }) =>
    setAffinity(tid, cpus) === 0 ? [] : [`thread ${tid} may use other CPUs than before`],
  );
}

function setIoPriorities({ ioPriorities }: RestorePlan): string[] {
  return ioPriorities.flatMap(({ tid, priority }) =>
    setIoPriority(tid, priority) === 0 ? [] : [`thread ${tid} has another I/O priority`],
  );
}

/** Writes a file of /proc; the note if that is not possible. */
function setFile(path: string, value: number, note: string): string[] {
  try {
    writeFileSync(path, String(value));
    return [];
  } catch {
    return [note];
  }
}

function bytesOf({ value }: LateOption): Buffer {
  if (typeof value === 'string') return textToBytes(value);
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value | 0);
  return bytes;
}

function own(socket: number, uid: number, gid: number): boolean {
  if (uid === 0 && gid === 0) return true;
  try {
    fchownSync(socket, uid, gid);
    return true;
  } catch {
    return false;
  }
}

function setSockets({ sockets }: RestorePlan): string[] {
  return sockets.flatMap(({ pid, fd, uid, gid, options }) => {
    const socket = takeDescriptor(pid, fd);
    if (socket < 0) return [`the socket fd ${fd} of process ${pid} has lost its options`];
    try {
      const owner = own(socket, uid, gid)
        ? []
        : [`the socket fd ${fd} of process ${pid} belongs to root now`];
      const lost = options.flatMap((option) => {
        const [level, number] = lateOptions[option.name];
        const value = bytesOf(option);
        const result = setsockopt(socket, level, number, value, value.length);
        if (result === 0) return [];
        return [`the socket fd ${fd} of process ${pid} has lost ${option.name} (${errnoText(-result)})`];
      });
      return [...owner, ...lost];
    } finally {
      closeSync(socket);
    }
  });
}

/** `exclusive` of CRIU's images is not looked at when they are restored. */
function setExclusive({ exclusiveTerminals }: RestorePlan): string[] {
  return exclusiveTerminals.flatMap(({ pid, fd }) => {
    const terminal = takeDescriptor(pid, fd);
    const done = terminal >= 0 && ioctl(terminal, TIOCEXCL, 0) === 0;
    if (terminal >= 0) closeSync(terminal);
    return done ? [] : [`the terminal fd ${fd} of process ${pid} can be opened by others again`];
  });
}

function setFifos({ fifos }: RestorePlan): string[] {
  return fifos.flatMap(({ pid, fd, flags, capacityBytes }) => {
    const fifo = takeDescriptor(pid, fd);
    const done =
      fifo >= 0 &&
      fcntl(fifo, F_SETFL, flags) === 0 &&
      fcntl(fifo, F_SETPIPE_SZ, capacityBytes) === capacityBytes;
    if (fifo >= 0) closeSync(fifo);
    return done ? [] : [`the FIFO fd ${fd} of process ${pid} has other flags or another size`];
  });
}

/**
 * Sets what CRIU does not restore and what can be set from outside: CPU affinity, I/O priority, timer slack,
 * core dump filter, owners and options of sockets, exclusive terminals, timers on the wall clock, FIFOs. The
 * processes have to be there, stopped or running. Returns a sentence for each thing that could not be set.
 */
export function applyLateSettings(plan: RestorePlan): string[] {
  return [
    ...setAffinities(plan),
    ...setIoPriorities(plan),
    ...plan.timerSlacks.flatMap(({ tid, nanoseconds }) =>
      setFile(`/proc/${tid}/timerslack_ns`, nanoseconds, `thread ${tid} has the default timer slack`),
    ),
    ...plan.coredumpFilters.flatMap(({ pid, filter }) =>
      setFile(`/proc/${pid}/coredump_filter`, filter, `process ${pid} has the default coredump_filter`),
    ),
    ...setSockets(plan),
    ...setExclusive(plan),
    ...setWallClockTimers(plan),
    ...setFifos(plan),
  ];
}
