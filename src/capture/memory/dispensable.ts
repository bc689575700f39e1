import { VM } from '../../linux/mm.ts';
import type { Mm } from '../../linux/mm-types.ts';
import type { Area } from './memory-attributes.ts';

/** Where the areas are that every program needs. */
type Places = Pick<
  Mm,
  'start_code' | 'end_code' | 'start_data' | 'end_data' | 'start_stack' | 'start_brk' | 'brk'
>;

type Shape = Pick<Area, 'start' | 'end' | 'flags'> & { readonly view: Pick<Area['view'], 'vm_file'> };

function isPrivateOfFile({ flags, view }: Shape): boolean {
  return (flags & (VM.mayShare | VM.hugetlb)) === 0 && view.vm_file !== 0n;
}

/** Whether an area is one of those that the kernel noted when the program was executed. */
function isNoted(
  { start_code, end_code, start_data, end_data, start_stack, start_brk, brk }: Places,
  { start, end }: Shape,
): boolean {
  const hasSome = (from: number, to: number): boolean => from < to && start < to && end > from;
  // Whatever has been put in the place of code and data since: huge pages, for one.
  if (hasSome(start_code, end_code) || hasSome(start_data, end_data)) return true;
  return hasSome(start_stack, start_stack + 1) || (brk > start_brk && start <= brk && end >= start_brk);
}

/**
 * Whether a process that comes back for its crash procedure alone may be without an area. It needs what its
 * code needs, its libraries included, to run at all: code, its data (private areas of files, and anonymous
 * ones right behind them), heap and stack. Whether the procedure itself is there is looked at when its record
 * is checked.
 *
 * @param before the area below it
 */
export function isDispensable(places: Places, area: Shape, before: Shape | undefined): boolean {
  if ((area.flags & (VM.exec | VM.growsDown)) !== 0) return false;
  if (isPrivateOfFile(area) || isNoted(places, area)) return false;
  const isOwn = (area.flags & VM.mayShare) === 0;
  return !isOwn || before === undefined || before.end !== area.start || !isPrivateOfFile(before);
}
