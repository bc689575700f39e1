import type { MemoryRange } from '../config/manifest.ts';
import type { HaltedCpu } from '../linux/halted-cpus.ts';
import type { Report } from '../report/schema.ts';
import { reclaimMemory } from './reclaim.ts';

const EVERYTHING: MemoryRange = { start: 0, end: Number.POSITIVE_INFINITY };

/**
 * The old memory that CPUs stand in which this kernel has not started: all of it, if that is not known of one.
 * @param halted the dead kernel's CPUs; undefined if it could not be told which there were
 * @param running APIC ids of the CPUs that this kernel uses
 */
export function neededMemory(
  halted: readonly HaltedCpu[] | undefined,
  running: ReadonlySet<number>,
): MemoryRange[] {
  if (halted === undefined) return [EVERYTHING];
  return halted
    .filter(({ apicId }) => !running.has(apicId))
    .flatMap(
      ({ memory }) =>
        memory?.map(({ physical, length }) => ({ start: physical, end: physical + length })) ?? [EVERYTHING],
    );
}

/** Takes ranges of old memory back, enters what that brought into the report, and returns what had to be left alone. */
export function takeBack(
  ranges: readonly MemoryRange[],
  needed: readonly MemoryRange[],
  report: Report,
): readonly MemoryRange[] {
  const { bytes, withheld, failures } = reclaimMemory(ranges, needed);
  report.memory.reclaimedBytes += bytes;
  report.errors.push(...failures);
  return withheld;
}

/** What the report says of memory that stays withheld. */
export function describeWithheld(withheld: readonly MemoryRange[], needed: readonly MemoryRange[]): string {
  const bytes = withheld.reduce((sum, { start, end }) => sum + end - start, 0);
  const left = `${bytes / 2 ** 20} MiB of old memory are not taken back: `;
  return needed.includes(EVERYTHING)
    ? `${left}a processor that stays off is halted in them, and it is not known where`
    : `${left}a processor that stays off is halted in them`;
}
