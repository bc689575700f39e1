import { PAGE_SIZE } from '../../system/page.ts';
import { ContainerError } from '../../vmcore/errors.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { checkLimit, settledWalk } from '../container.ts';
import { mtForEach } from '../maple-tree.ts';
import { type Mm, type VmArea, vmAreaStruct } from '../mm-types.ts';

/** More areas than vm.max_map_count is ever set to. */
const MAX_AREAS = 1 << 24;

function checkArea(mm: Mm, area: VmArea, after: number): void {
  const problem =
    area.vm_mm !== mm.address
      ? 'belongs to another process'
      : area.vm_end <= area.vm_start || area.vm_start % PAGE_SIZE !== 0 || area.vm_end % PAGE_SIZE !== 0
        ? `has the range ${area.vm_start.toString(16)}-${area.vm_end.toString(16)}`
        : area.vm_start < after
          ? 'overlaps the one before it'
          : undefined;
  if (problem !== undefined) throw new ContainerError('vm_area_struct', area.address, problem);
}

function* fromMapleTree(kernel: Kernel, mm: Mm): Generator<VmArea> {
  const bound = kernel.bind(vmAreaStruct);
  for (const { first, last, entry } of mtForEach(kernel, mm.mm_mt, MAX_AREAS)) {
    const area = bound.at(entry);
    if (area.vm_start !== first || area.vm_end !== last + 1) {
      throw new ContainerError('vm_area_struct', entry, 'is not stored under its own range');
    }
    yield area;
  }
}

function* fromList(kernel: Kernel, mm: Mm): Generator<VmArea> {
  const bound = kernel.bind(vmAreaStruct);
  let address = mm.mmap ?? 0n;
  for (let count = 1; address !== 0n; count++) {
    checkLimit('list of memory areas', mm.address, count, MAX_AREAS);
    const area = bound.at(address);
    yield area;
    address = area.vm_next ?? 0n;
  }
}

/**
 * The memory areas of a process, ascending. Each is checked against its place in the tree, its process and
 * the area before it. Throws a ContainerError if something does not fit.
 */
export function forEachVma(kernel: Kernel, mm: Mm): Generator<VmArea> {
  return settledWalk(kernel, () => walkVmas(kernel, mm));
}

function* walkVmas(kernel: Kernel, mm: Mm): Generator<VmArea> {
  const areas = kernel.hasMember('mm_struct', 'mm_mt') ? fromMapleTree(kernel, mm) : fromList(kernel, mm);
  let after = 0;
  for (const area of areas) {
    checkArea(mm, area, after);
    after = area.vm_end;
    yield area;
  }
}
