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

/** Whether anonymous areas lead down to a private one of a file without a gap: its data goes on in them. */
function isBehindFile({ start }: Shape, below: readonly Shape[]): boolean {
  let end = start;
  for (const area of below.toReversed()) {
    if (area.end !== end) return false;
    if (isPrivateOfFile(area)) return true;
    if ((area.flags & VM.mayShare) !== 0) return false;
    end = area.start;
  }
  return false;
}

/**
 * Whether a process that comes back for its crash procedure alone may be without an area. It needs what its
 * code needs, its libraries included, to run at all: code, its data (private areas of files, and all
 * anonymous ones that follow them without a gap), heap and stack. Whether the procedure itself is there is
 * looked at when its record is checked.
 *
 * @param below the areas below it, by rising address
 */
export function isDispensable(places: Places, area: Shape, below: readonly Shape[]): boolean {
  if ((area.flags & (VM.exec | VM.growsDown)) !== 0) return false;
  if (isPrivateOfFile(area) || isNoted(places, area)) return false;
  return (area.flags & VM.mayShare) !== 0 || !isBehindFile(area, below);
}
