import { statfsSync, statSync } from 'node:fs';
import { PROC_SUPER_MAGIC } from '../../system/file-systems.ts';
import { inNamespacesOf } from '../../system/namespaces.ts';

/**
 * What runs in a sandbox as root while processes are restored into it (the shell of CRIU's action script),
 * and what tells its loader, and CRIU's, what else to run.
 */
const RUN = [
  '/bin/sh',
  '/lib64/ld-linux-x86-64.so.2',
  '/lib/x86_64-linux-gnu/libc.so.6',
  '/etc/ld.so.cache',
  '/etc/ld.so.preload',
];

function identities(paths: readonly string[]): string[] {
  return paths.map((path) => {
    const stats = statSync(path, { throwIfNoEntry: false, bigint: true });
    return stats === undefined ? 'none' : `${stats.dev} ${stats.ino}`;
  });
}

/**
 * Programs of a sandbox that are not the system's own: who can write to its files, as its service may, would
 * run as root.
 * @param placeholder a process in the sandbox
 * @returns a sentence for each
 */
export function strangePrograms(placeholder: number, paths: readonly string[] = RUN): string[] {
  const outside = identities(paths);
  const inside = inNamespacesOf(placeholder, () => ({
    files: identities(paths),
    proc: statfsSync('/proc').type,
  }));
  const others = paths.filter((_, i) => inside.files[i] !== outside[i]);
  return [
    ...(inside.proc === PROC_SUPER_MAGIC ? [] : ['its sandbox has no /proc']),
    ...others.map((path) => `its sandbox has another ${path} than the system, and nothing is run there`),
  ];
}
