import type { Mm } from '../../linux/mm-types.ts';
import { forEachVma } from '../../linux/readers/vma.ts';
import { check, type Findings, ofTheMoment } from '../../model/verdict.ts';
import { PAGE_SIZE } from '../../system/page.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import type { Area } from './memory-attributes.ts';
import { believedArea } from './memory-flags.ts';

/** Whose areas they are. */
interface AreasOwner {
  /** One of its threads was on a CPU. */
  readonly isRunning: boolean;
  readonly findings: Findings;
}

/** The areas of an address space, compared with what the kernel counts of them. */
export function readAreas(kernel: Kernel, mm: Mm, owner: AreasOwner): Area[] {
  const areas = Array.from(forEachVma(kernel, mm), (view) => believedArea(kernel, view, owner.findings));
  const pages = areas.reduce((sum, { start, end }) => sum + (end - start) / PAGE_SIZE, 0);
  whileItMoves(kernel, owner, () => checkAreas(mm, areas.length, pages, owner.findings));
  return areas;
}

/** Counts of a process that runs on while it is read are of another moment than what they count. */
export function whileItMoves<T>(
  { isAlive }: Kernel,
  { isRunning, findings }: AreasOwner,
  compare: () => T,
): T {
  return ofTheMoment(findings, isAlive && isRunning ? 'passing' : undefined, compare);
}

/**
 * Of the kernel's two counts one may be wrong: the tree is right if the other agrees with it. An area that
 * the tree has lost is missing from both.
 */
function checkAreas(mm: Mm, areas: number, pages: number, findings: Findings): void {
  const numberAgrees = check(
    findings,
    'mm->map_count against the areas in the maple tree',
    mm.map_count,
    areas,
  );
  const sizeAgrees = check(findings, 'mm->total_vm against the sizes of the areas', mm.total_vm, pages);
  if (!numberAgrees && !sizeAgrees && (areas < mm.map_count || pages < mm.total_vm)) {
    findings.reasons.push(
      `has ${areas} memory areas of ${pages} pages, but the kernel counted ${mm.map_count} of ${mm.total_vm}`,
    );
    return;
  }
  if (!numberAgrees)
    findings.repairs.push({ what: 'number of memory areas', used: 'the maple tree', instead: 'map_count' });
  if (!sizeAgrees)
    findings.repairs.push({ what: 'size of the address space', used: 'the areas', instead: 'total_vm' });
}
