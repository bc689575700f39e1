import { closeSync, writeFileSync } from 'node:fs';
import koffi from 'koffi';
import { type LateOption, lateOptions } from '../../model/socket-option.ts';
import { textToBytes } from '../../vmcore/byte-text.ts';
import type { RestorePlan } from '../images/plan/restore-plan.ts';
import { takeDescriptor } from './descriptor.ts';
import { setWallClockTimers } from './wall-clock-timers.ts';

/** sched_setaffinity takes a mask of this many bytes: 1024 CPUs. */
const CPU_SET_BYTES = 128;
const SYS_ioprio_set = 251;
const IOPRIO_WHO_PROCESS = 1;

const TIOCEXCL = 0x540c;
const F_SETFL = 4;
const F_SETPIPE_SZ = 1031;

const libc = koffi.load('libc.so.6');
const syscall = libc.func('long syscall(long number, long first, long second, long third)');
const setAffinity = libc.func('int sched_setaffinity(int pid, size_t size, void *mask)');
const ioctl = libc.func('int ioctl(int fd, unsigned long request, long argument)');
const fileControl = libc.func('int fcntl(int fd, int command, long argument)');
const changeOwner = libc.func('int fchown(int fd, uint32_t uid, uint32_t gid)');
const setOption = libc.func('int setsockopt(int fd, int level, int option, void *value, uint32_t size)');

function setAffinities({ affinities }: RestorePlan): string[] {
  return affinities.flatMap(({ tid, cpus }) => {
    const mask = Buffer.alloc(CPU_SET_BYTES);
    for (const cpu of cpus) mask[cpu >> 3] = (mask[cpu >> 3] ?? 0) | (1 << (cpu & 7));
    return setAffinity(tid, CPU_SET_BYTES, mask) === 0
      ? []
      : [`thread ${tid} may use other CPUs than before`];
  });
}

function setIoPriorities({ ioPriorities }: RestorePlan): string[] {
  return ioPriorities.flatMap(({ tid, priority }) =>
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid, priority) === 0
      ? []
      : [`thread ${tid} has another I/O priority`],
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
  return (uid === 0 && gid === 0) || changeOwner(socket, uid, gid) === 0;
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
        if (setOption(socket, level, number, value, value.length) === 0) return [];
        return [`the socket fd ${fd} of process ${pid} has lost ${option.name} (errno ${koffi.errno()})`];
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
      fileControl(fifo, F_SETFL, flags) === 0 &&
      fileControl(fifo, F_SETPIPE_SZ, capacityBytes) === capacityBytes;
    if (fifo >= 0) closeSync(fifo);
    return done ? [] : [`the FIFO fd ${fd} of process ${pid} has other flags or another size`];
  });
}

/**
 * Sets what CRIU does not restore and what can be set from outside: CPU affinity, I/O priority, timer slack, core dump filter, owners
 * and options of sockets, exclusive terminals, timers on the wall clock, FIFOs. The processes have to be there, stopped or running. Returns a sentence for each thing that could not be set.
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
