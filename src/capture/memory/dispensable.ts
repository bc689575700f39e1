import { VM } from '../../linux/mm.ts';
import type { Mm } from '../../linux/mm-types.ts';
import type { Area } from './memory-attributes.ts';

/** Where the areas are that every program needs. */
type Places = Pick<Mm, 'start_stack' | 'start_brk' | 'brk'>;

type Shape = Pick<Area, 'start' | 'end' | 'flags'> & { readonly view: Pick<Area['view'], 'vm_file'> };

function isPrivateOfFile({ flags, view }: Shape): boolean {
  return (flags & (VM.mayShare | VM.hugetlb)) === 0 && view.vm_file !== 0n;
}

/**
 * Whether a process that comes back for its crash procedure alone may be without an area. It needs what its
 * code needs, its libraries included, to run at all: code, its data (private areas of files, and anonymous
 * ones right behind them), heap and stack. Whether the procedure itself is there is looked at when its record
 * is checked.
 *
 * @param before the area below it
 */
export function isDispensable(
  { start_stack, start_brk, brk }: Places,
  area: Shape,
  before: Shape | undefined,
): boolean {
  if ((area.flags & VM.exec) !== 0 || isPrivateOfFile(area)) return false;
  if ((area.flags & VM.growsDown) !== 0 || (area.start <= start_stack && area.end > start_stack))
    return false;
  if (brk > start_brk && area.start <= brk && area.end >= start_brk) return false;
  const isOwn = (area.flags & VM.mayShare) === 0;
  return !isOwn || before === undefined || before.end !== area.start || !isPrivateOfFile(before);
}
