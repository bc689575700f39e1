import { ContainerError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { settled } from '../container.ts';
import { addressSpaceStruct } from '../fs.ts';
import { VM } from '../mm.ts';
import { vmAreaStruct } from '../mm-types.ts';
import { rbTreeForEachEntry } from '../rbtree.ts';

/** More areas than map one file in a sound machine. */
const MAX_MAPPERS = 1 << 22;

/** An area that maps an inode. */
export interface Mapping {
  /** Address of the mm_struct. */
  readonly mm: bigint;
  /** VM_MAYSHARE: what others write is seen there; not a private copy. */
  readonly isShared: boolean;
  /** A shared one that can write, or can be made to (vma_is_shared_maywrite). */
  readonly isWritable: boolean;
}

/**
 * All areas of all processes that map the inode of an `address_space`, in no order; the walk is in proportion
 * to their number. Throws a ContainerError if the tree is damaged, or has fewer writable shared areas than
 * the kernel counts.
 */
export function mappingsOf(kernel: Kernel, mapping: bigint): Mapping[] {
  return settled(kernel, () => readMappings(kernel, mapping));
}

function readMappings(kernel: Kernel, mapping: bigint): Mapping[] {
  const { i_mmap, i_mmap_writable: counted } = kernel.bind(addressSpaceStruct).at(mapping);
  const areas = rbTreeForEachEntry(kernel, i_mmap, kernel.bind(vmAreaStruct), 'shared.rb', MAX_MAPPERS);
  const mappings = Array.from(areas, ({ vm_mm: mm, vm_flags }): Mapping => {
    const { low } = vm_flags;
    const isWritable = (low & VM.shared) !== 0 && (low & VM.mayWrite) !== 0;
    return { mm, isShared: (low & VM.mayShare) !== 0, isWritable };
  });
  const writable = mappings.filter(({ isWritable }) => isWritable).length;
  if (writable < counted) {
    throw new ContainerError('i_mmap', mapping, `has ${writable} writable areas but counts ${counted}`);
  }
  return mappings;
}
