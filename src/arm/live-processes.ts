import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Matchable } from '../config/match.ts';
import { printableArguments } from '../report/printable.ts';
import { codeOf } from '../system/thrown.ts';
import { bytesToText } from '../vmcore/byte-text.ts';

/** A running process as rules see it; undefined if it is gone, is a kernel thread or a zombie. */
export function liveProcess(pid: number): Matchable | undefined {
  try {
    const stat = bytesToText(readFileSync(`/proc/${pid}/stat`));
    const end = stat.lastIndexOf(')');
    const fields = stat.slice(end + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return undefined;
    const exe = exePath(pid);
    const cgroup = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, 'utf8'))?.[1];
    const owner = ownerOf(readFileSync(`/proc/${pid}/status`, 'utf8'));
    const comm = stat.slice(stat.indexOf('(') + 1, end);
    return { pid, comm, exe, cgroup, startTicks: Number(fields[19]), owner };
  } catch (error) {
    // Gone in the meantime, or a kernel thread, which has no exe.
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined;
    throw error;
  }
}

/** The arguments of a running process for people; undefined if it is gone or has none. */
export function liveCommandLine(pid: number): string | undefined {
  try {
    return printableArguments(readFileSync(`/proc/${pid}/cmdline`));
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ESRCH'))
      return undefined;
    throw error;
  }
}

/** Where the program of a process is hidden from us (EACCES: PID 1 of some containers), its name is all that rules can go by. */
function exePath(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch (error) {
    if (codeOf(error) === 'EACCES') return undefined;
    throw error;
  }
}

/** `Uid:` of /proc/PID/status: real, effective, saved and file system user id (proc(5)). */
function ownerOf(status: string): number | undefined {
  const [, real, saved] = /^Uid:\t(\d+)\t\d+\t(\d+)/m.exec(status) ?? [];
  return real !== undefined && real === saved ? Number(real) : undefined;
}

/** All running processes with a program. */
export function liveProcesses(): Matchable[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => liveProcess(Number(name)))
    .filter((process) => process !== undefined);
}
