import { readFileSync, readlinkSync } from 'node:fs';
import type { Matchable } from '../config/match.ts';
import { printableArguments } from '../report/printable.ts';
import { bytesToText } from '../system/byte-text.ts';
import { cgroupOf, ifThere, parseStat, processNumbers } from '../system/proc.ts';
import { codeOf } from '../system/thrown.ts';

/** A running process as rules see it; undefined if it is gone, is a kernel thread or a zombie. */
export function liveProcess(pid: number): Matchable | undefined {
  // A kernel thread has no exe.
  return ifThere(() => {
    const { comm, state, startTicks } = parseStat(bytesToText(readFileSync(`/proc/${pid}/stat`)));
    if (state === 'Z' || state === 'X') return undefined;
    const exe = exePath(pid);
    const cgroup = cgroupOf(pid);
    const owner = ownerOf(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return { pid, comm, exe, cgroup, startTicks, owner };
  });
}

/** The arguments of a running process for people; undefined if it is gone or has none. */
export function liveCommandLine(pid: number): string | undefined {
  return ifThere(() => printableArguments(readFileSync(`/proc/${pid}/cmdline`)));
}

/**
 * Where the program of a process is hidden from us (EACCES: PID 1 of some containers), or its path is longer
 * than a page (ENAMETOOLONG: anybody can start such a one), its name is all that rules can go by.
 */
function exePath(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/ \(deleted\)$/, '');
  } catch (error) {
    if (codeOf(error) === 'EACCES' || codeOf(error) === 'ENAMETOOLONG') return undefined;
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
  return processNumbers()
    .map(liveProcess)
    .filter((process) => process !== undefined);
}
