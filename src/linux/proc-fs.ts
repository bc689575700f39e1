import type { Kernel } from '../vmcore/kernel.ts';
import { struct, u32 } from '../vmcore/view.ts';

/** `struct proc_fs_info` (include/linux/proc_fs.h), `s_fs_info` of a /proc. */
export const procFsInfo = struct('proc_fs_info', {
  pid_gid: u32.at('pid_gid.val'),
  hide_pid: u32,
  pidonly: u32,
});

/** `enum proc_hidepid`, as the kernel shows it. */
const hidden: Readonly<Record<number, string>> = { 0: '', 1: 'noaccess', 2: 'invisible', 4: 'ptraceable' };

/**
 * What a /proc does not show: its options as in /proc/PID/mountinfo, `gid=4,hidepid=invisible,subset=pid`;
 * empty if it shows all.
 */
export function procOptions(kernel: Kernel, info: bigint): string {
  const { pid_gid: gid, hide_pid, pidonly } = kernel.bind(procFsInfo).at(info);
  const hides = hidden[hide_pid] ?? String(hide_pid);
  return [
    ...(gid === 0 ? [] : [`gid=${gid}`]),
    ...(hides === '' ? [] : [`hidepid=${hides}`]),
    ...(pidonly === 0 ? [] : ['subset=pid']),
  ].join();
}
