import type { Kernel } from '../vmcore/kernel.ts';
import { struct, u8, u32, u64, type ViewOf } from '../vmcore/view.ts';
import { cgroupFileCtxStruct } from './cgroup-internal.ts';
import type { File } from './fs.ts';
import { kernfsOpenFileStruct } from './kernfs.ts';
import { seqFileStruct } from './seq-file.ts';

/** `struct psi_trigger` (include/linux/psi_types.h). */
export const psiTriggerStruct = struct('psi_trigger', {
  /** `enum psi_states`: twice the number of the resource, and one more for `full`. */
  state: u32,
  /** Nanoseconds, as the size of the window. */
  threshold: u64,
  windowSize: u64.at('win.size'),
  /** It has gone off, and nobody has polled since. */
  event: u32,
  /** It is about to go off: it does so once in a window at most. */
  pending_event: u8,
});

export type PsiTrigger = ViewOf<typeof psiTriggerStruct>;

/**
 * The trigger that was set through an open file of pressure (psi_write in kernel/sched/psi.c, pressure_write
 * in kernel/cgroup/cgroup.c); undefined if none was. Throws a VmcoreError if it cannot be read.
 * @param of the system's file in /proc, or one of a cgroup
 */
export function psiTriggerOf(
  kernel: Kernel,
  { private_data }: Pick<File, 'private_data'>,
  of: 'proc' | 'cgroup2',
): PsiTrigger | undefined {
  const { private: own } = kernel.bind(seqFileStruct).at(private_data);
  const address = of === 'proc' ? own : triggerOfCgroupFile(kernel, own);
  return address === 0n ? undefined : kernel.bind(psiTriggerStruct).at(address);
}

function triggerOfCgroupFile(kernel: Kernel, openFile: bigint): bigint {
  const { priv } = kernel.bind(kernfsOpenFileStruct).at(openFile);
  return kernel.bind(cgroupFileCtxStruct).at(priv).trigger;
}
