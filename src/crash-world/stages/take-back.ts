import { readFileSync } from 'node:fs';
import { type HaltedCpu, haltedCpus } from '../../linux/arch/index.ts';
import type { IncidentReport } from '../../report/schema.ts';
import type { Range } from '../../system/range.ts';
import type { Kernel } from '../../vmcore/kernel.ts';
import { missingCpus, runningApicIds, startCpus } from '../machine/cpus.ts';
import { reclaimMemory } from '../machine/reclaim.ts';
import { clearBusMasters } from '../machine/stray-dma.ts';
import { orElse, required, stage, step } from './stage-list.ts';

/** How much of the old memory this kernel has. */
export interface TakenBack {
  readonly bytes: number;
  /** All that there is of it. */
  readonly ofBytes: number;
}

/** What is needed where it is not known what is. */
export const EVERYTHING: Range = { start: 0, end: Number.POSITIVE_INFINITY };

export const cpusStage = stage({
  name: 'cpus',
  needs: { kernel: required<Kernel>(), parked: orElse<ReadonlySet<number>>(new Set()) },
  run: ({ kernel, parked }, { report }) => ({ needed: startOtherCpus(kernel, parked, report) }),
});

/** Ends the reading of the dead kernel's memory, which may be in use again after this. */
export const closeStep = step({
  name: 'close',
  needs: { kernel: required<Kernel>() },
  run: ({ kernel }) => {
    kernel.close();
    return { kernel: undefined, writeBack: undefined };
  },
});

export const memoryStage = stage({
  name: 'memory',
  needs: { needed: orElse<readonly Range[]>([EVERYTHING]) },
  run: ({ needed }, { manifest, report }) => ({
    takenBack: takeBackMemory(manifest.ranges, needed, report),
  }),
});

/**
 * Starts the CPUs that are still off, which takes them out of the dead kernel's memory.
 * @param parked APIC ids of those that stage zero has taken out of it already
 * @returns the old memory that must stay as it is, because CPUs that did not start are halted in it
 */
function startOtherCpus(kernel: Kernel, parked: ReadonlySet<number>, report: IncidentReport): Range[] {
  const halted = haltedCpus(kernel);
  const { online, failed } = startCpus();
  const commandLine = readFileSync('/proc/cmdline', 'utf8');
  report.notes.push(...failed, ...missingCpus(kernel.cpus.length, online, commandLine));
  return neededMemory(halted, new Set([...parked, ...runningApicIds()]));
}

/**
 * The old memory that CPUs are halted in which this kernel has not started: all of it, if that is not known
 * of one.
 * @param halted the dead kernel's CPUs; undefined if it could not be told which there were
 * @param elsewhere APIC ids of the CPUs that this kernel uses, and of those parked in reserved memory
 */
export function neededMemory(
  halted: readonly HaltedCpu[] | undefined,
  elsewhere: ReadonlySet<number>,
): Range[] {
  if (halted === undefined) return [EVERYTHING];
  return halted
    .filter(({ apicId }) => !elsewhere.has(apicId))
    .flatMap(
      ({ memory }) =>
        memory?.map(({ physical, length }) => ({ start: physical, end: physical + length })) ?? [EVERYTHING],
    );
}

/**
 * Takes old memory back, all but the blocks that are needed.
 * @throws StrayDmaError if a device may still write into it, ReclaimError if the kernel cannot do this
 */
function takeBackMemory(
  ranges: readonly Range[],
  needed: readonly Range[],
  report: IncidentReport,
): TakenBack {
  clearBusMasters();
  const { bytes, withheldBytes, failures } = reclaimMemory(ranges, needed);
  report.memory.reclaimedBytes = bytes;
  report.errors.push(...failures);
  if (needed.includes(EVERYTHING)) {
    report.errors.push(
      'no old memory is taken back: it is not known where a processor that stays off is halted',
    );
  } else if (withheldBytes > 0) {
    report.notes.push(
      `${withheldBytes / 2 ** 20} MiB of old memory are not taken back: processors that stay off are halted in them`,
    );
  }
  return { bytes, ofBytes: ranges.reduce((sum, { start, end }) => sum + end - start, 0) };
}
