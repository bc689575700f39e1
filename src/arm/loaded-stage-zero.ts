import { join } from 'node:path';
import { noteOf } from '../stage-zero/area.ts';
import { savedState } from '../stage-zero/saved.ts';
import { parseNotes } from '../system/elf.ts';
import { codeOf } from '../system/thrown.ts';
import { Kcore } from '../vmcore/kcore.ts';
import type { KcoreMemory } from './loaded-mark.ts';

const DAMAGED = 'stage zero was overwritten since the system was armed; run otherworld arm again';

/**
 * Whether stage zero is in the reserved memory as it was loaded, by the checksum that it compares itself with
 * at a panic.
 * @param address physical
 * @returns why it would do nothing: the end of a sentence; undefined if it is whole, or not shown
 */
export function stageZeroDamage(memory: KcoreMemory, address: number): string | undefined {
  const note = noteOf(address);
  const bytes = memory.readPhysical(note.address, note.bytes);
  if (bytes.length < note.bytes) return undefined;
  const read = (physical: number, length: number): Buffer => {
    const found = memory.readPhysical(physical, length);
    if (found.length < length) throw new RangeError('is not in memory');
    return found;
  };
  try {
    const problems = savedState(parseNotes(bytes), { read })?.problems ?? [DAMAGED];
    return problems.length === 0 ? undefined : DAMAGED;
  } catch (error) {
    // The note leads elsewhere.
    if (error instanceof RangeError) return DAMAGED;
    throw error;
  }
}

/** The same for the running kernel. */
export function loadedStageZeroDamage(address: number, root = '/'): string | undefined {
  try {
    using memory = new Kcore(join(root, 'proc/kcore'));
    return stageZeroDamage(memory, address);
  } catch (error) {
    if (codeOf(error) === undefined) throw error;
    return undefined;
  }
}
