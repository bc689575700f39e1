import { fileStruct, fileSystemOf, inodeStruct } from '../../linux/fs.ts';
import { VM, VM_HIGH } from '../../linux/mm.ts';
import type { VmArea } from '../../linux/mm-types.ts';
import type { Findings } from '../../model/verdict.ts';
import { readable } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Area } from './memory-attributes.ts';

/** `0x7f0000000000-0x7f0000002000` */
export function hexRange({ start, end }: Pick<Area, 'start' | 'end'>): string {
  return `0x${start.toString(16)}-0x${end.toString(16)}`;
}

/** Flags that only mappings of something can have: of a device, of huge pages, of persistent memory. */
const OF_MAPPINGS = VM.pfnMap | VM.io | VM.mixedMap | VM.hugetlb | VM.sync;
const OF_USERFAULTFD = VM.uffdMissing | VM.uffdWp;

/**
 * An area with the flags that are believed: of one that something else of the area says cannot be, a bit was
 * flipped. What was not believed goes to the repairs.
 */
export function believedArea(kernel: Kernel, view: VmArea, findings: Findings): Area {
  const { low, high } = view.vm_flags;
  const area = { view, start: view.vm_start, end: view.vm_end };
  const repair = (used: string, instead: string): void => {
    findings.repairs.push({ what: `the memory area ${hexRange(area)}`, used, instead });
  };
  const minor = uffdMinor(kernel);
  const isFlagged = (low & OF_USERFAULTFD) !== 0 || (high & minor) !== 0;
  const context = view.userfaultfd ?? 0n;
  const isWatched = isFlagged ? context !== 0n : isContext(kernel, context);
  if (isFlagged && !isWatched) repair('vm_userfaultfd_ctx, which is NULL', 'userfaultfd flags');
  if (!isFlagged && context !== 0n && !isWatched)
    repair('vm_flags', 'vm_userfaultfd_ctx, which leads nowhere');
  const false_ = falseMapping(kernel, view);
  if (false_ !== undefined) repair(false_.used, `flags 0x${false_.flags.toString(16)}`);
  const cleared = (isWatched ? 0 : OF_USERFAULTFD) | (false_?.flags ?? 0);
  return {
    ...area,
    flags: (low & ~cleared) >>> 0,
    flagsHigh: (isWatched ? high : high & ~minor) >>> 0,
    isWatched,
  };
}

/**
 * The bit of userfaultfd's third flag: shadow stacks have taken its place (6.6), where their state is in
 * every thread.
 */
function uffdMinor(kernel: Kernel): number {
  return kernel.hasMember('task_struct', 'thread.features') ? VM_HIGH.uffdMinor : VM_HIGH.uffdMinorBefore66;
}

function isContext(kernel: Kernel, context: bigint): boolean {
  return context !== 0n && readable(() => kernel.memory.u64(context)) !== undefined;
}

/**
 * Flags of mappings that the area cannot have: it is anonymous (vma_is_anonymous), or huge pages of a file
 * that is not on hugetlbfs.
 */
function falseMapping(kernel: Kernel, view: VmArea): { flags: number; used: string } | undefined {
  const { low } = view.vm_flags;
  if (view.vm_file === 0n && view.vm_ops === 0n) {
    const flags = (low & OF_MAPPINGS) >>> 0;
    return flags === 0 ? undefined : { flags, used: 'vm_file and vm_ops, which say that it is anonymous' };
  }
  if ((low & VM.hugetlb) === 0 || view.vm_file === 0n) return undefined;
  const name = readable(() => {
    const { f_inode } = kernel.bind(fileStruct).at(view.vm_file);
    return fileSystemOf(kernel, kernel.bind(inodeStruct).at(f_inode).i_sb).name;
  });
  if (name === undefined || name === 'hugetlbfs') return undefined;
  return { flags: VM.hugetlb, used: `its file, which is on ${name}` };
}
