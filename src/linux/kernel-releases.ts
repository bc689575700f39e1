/** A series of kernel releases: 6.12 stands for 6.12.0 and all its updates. */
export type Series = `${number}.${number}`;

/**
 * Constants of the kernel that its type information (BTF) does not have: macros, and what follows from code.
 * They may differ in any release without a sign, and a wrong one makes a process come back wrong. Constants
 * that user space sees never change and are not here.
 */
export interface CheckedConstants {
  /** For messages: what is believed. */
  readonly what: string;
  /**
   * Series whose sources have been looked at: macros by test/linux/kernel-constants.ts, code by reading it.
   */
  readonly checked: readonly Series[];
}

const BOTH: readonly Series[] = ['6.1', '6.12'];

export const checkedConstants: readonly CheckedConstants[] = [
  { what: 'flags of tasks and threads (PF_, TIF_, PFA_, TASK_)', checked: BOTH },
  { what: 'flags of processes (SIGNAL_, MMF_)', checked: BOTH },
  { what: 'flags of memory areas and pages (VM_, PAGE_MAPPING_)', checked: BOTH },
  { what: 'flags of files and file systems (FMODE_, SB_, FL_, FS_, FSNOTIFY_)', checked: BOTH },
  { what: 'states of inodes (I_DIRTY_)', checked: BOTH },
  { what: 'flags of sockets, terminals and keys (SOCK_PASS, NETLINK_F_, TTY_, KEY_FLAG_)', checked: BOTH },
  { what: 'numbers of system calls and how the kernel restarts them', checked: BOTH },
  { what: 'where a task has its registers, its vector state and its timers', checked: BOTH },
  { what: 'how kernel stacks are unwound (ORC), and what functions on them mean for a call', checked: BOTH },
  {
    what: 'the ways into and out of the kernel (arch/x86/entry), and which exceptions come again',
    checked: BOTH,
  },
  { what: 'how a process ends and its parent is told (do_exit, do_notify_parent)', checked: BOTH },
  { what: 'how the clocks are kept (tk_core)', checked: BOTH },
  { what: 'entries of page tables that are not present', checked: BOTH },
];

/** The series of a release as `uname -r` has it; undefined if it begins with no version. */
export function seriesOf(release: string): Series | undefined {
  const [, major, minor] = /^(\d+)\.(\d+)(?=[^\d]|$)/.exec(release) ?? [];
  return major === undefined ? undefined : `${Number(major)}.${Number(minor)}`;
}

/** All series in which everything has been checked, ascending. */
export function checkedSeries(): Series[] {
  const all = new Set(checkedConstants.flatMap(({ checked }) => checked));
  return [...all].filter((series) => uncheckedConstants(series).length === 0);
}

/**
 * What is believed of a kernel though nobody has looked whether it holds for its release; empty for a release
 * that was checked.
 */
export function uncheckedConstants(release: string): string[] {
  const series = seriesOf(release);
  const known = new Set<string>();
  for (const { what, checked } of checkedConstants) {
    if (series !== undefined && checked.includes(series)) known.add(what);
  }
  return [...new Set(checkedConstants.map(({ what }) => what))].filter((what) => !known.has(what));
}

/**
 * A sentence about a kernel of which not all constants have been checked; undefined for one of which they
 * have.
 */
export function uncheckedRelease(release: string): string | undefined {
  const missing = uncheckedConstants(release);
  if (missing.length === 0) return undefined;
  const all = new Set(checkedConstants.map(({ what }) => what)).size;
  const what = missing.length === all ? 'the constants that are not in its BTF' : missing.join('; ');
  return `kernel ${release} is of a series that was not checked (${checkedSeries().join(' and ')} were): ${what} may be others, and a process could come back wrong`;
}
