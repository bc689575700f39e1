import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod';
import { ifThere } from '../system/proc.ts';

/**
 * Limits that the kernel derives from the memory that it boots with, as files below /proc/sys: one number or
 * several (set_max_threads and fork_init in kernel/fork.c, files_maxfiles_init in fs/file_table.c,
 * inotify_user_setup and fanotify_user_setup in fs/notify, eventpoll_init in fs/eventpoll.c, tcp_init and
 * udp_init in net/ipv4).
 */
const SYSCTLS = [
  'kernel/threads-max',
  'fs/file-max',
  'fs/epoll/max_user_watches',
  'fs/fanotify/max_user_marks',
  'fs/inotify/max_user_watches',
  ...['cgroup', 'ipc', 'mnt', 'net', 'pid', 'time', 'user', 'uts'].map(
    (kind) => `user/max_${kind}_namespaces`,
  ),
  ...['max_orphans', 'max_syn_backlog', 'max_tw_buckets', 'mem', 'rmem', 'wmem'].map(
    (name) => `net/ipv4/tcp_${name}`,
  ),
  'net/ipv4/udp_mem',
] as const;

/** Limits of process 1 that all others have from it, by their name in /proc/PID/limits. */
export const bootRlimits = { 'Max processes': 6, 'Max pending signals': 11 } as const;

/** Soft and hard; `unlimited` or a number. */
const rlimit = z.tuple([z.string(), z.string()]);

export const bootLimitsSchema = z.strictObject({
  /** Text of files below /proc/sys. */
  sysctls: z.record(z.string(), z.string()),
  /** By the number of the resource (setrlimit(2)). */
  rlimits: z.record(z.string(), rlimit),
});

/** What a system that has booted with all of its memory has. */
export type BootLimits = z.infer<typeof bootLimitsSchema>;

/** The limits of this system; one that the kernel does not have is left out. */
export function readBootLimits(proc = '/proc'): BootLimits {
  const sysctls = SYSCTLS.flatMap((name): [string, string][] => {
    const text = ifThere(() => readFileSync(join(proc, 'sys', name), 'latin1'));
    return text === undefined ? [] : [[name, text.trim().replaceAll(/\s+/g, ' ')]];
  });
  const lines = readFileSync(join(proc, '1/limits'), 'latin1');
  const rlimits = Object.entries(bootRlimits).flatMap(([name, number]): [string, [string, string]][] => {
    const [, soft, hard] = new RegExp(`^${name} +(\\S+) +(\\S+)`, 'm').exec(lines) ?? [];
    return soft === undefined || hard === undefined ? [] : [[String(number), [soft, hard]]];
  });
  return { sysctls: Object.fromEntries(sysctls), rlimits: Object.fromEntries(rlimits) };
}
